//! placeholder until the real file lands
use crate::FieldError;
/// x
#[derive(Clone, Debug)]
pub struct Resources;
impl Resources {
    /// x
    pub fn from_spec(_: Option<&oci_spec::runtime::LinuxResources>) -> Result<Self, FieldError> {
        Ok(Self)
    }
}
