//! Request lines and bodies in front of the signature check.
#![no_main]

use dunlin_protocol::fuzz_properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|request: (&str, &str, &[u8])| {
    let (path, query, body) = request;
    fuzz_properties::signed_request(path, query, body);
});
