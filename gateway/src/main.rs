//! stub
mod raft;
mod state;
fn main() {}
