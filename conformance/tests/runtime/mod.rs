//! What an OCI runtime owes to its callers, one file for each subject.
