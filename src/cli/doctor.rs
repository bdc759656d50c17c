//! stub
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {}
pub fn run(_: DoctorArgs) -> u8 { 0 }
