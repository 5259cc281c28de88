//! stub
mod state;
fn main() {}
