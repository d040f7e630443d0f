//! unserved
