//! stub
/// x
pub struct Filter; /// x
pub struct FilterError; /// x
pub struct Decision; /// x
pub struct PathKind; /// x
pub struct Rule;
