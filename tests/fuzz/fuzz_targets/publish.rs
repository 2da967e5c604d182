//! Bodies of both publish endpoints.
#![no_main]

use dunlin_protocol::fuzz_properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| fuzz_properties::publish_body(body));
