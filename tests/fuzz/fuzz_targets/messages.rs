//! Texts of clients, and server frames as the fallback transports walk them.
#![no_main]

use dunlin_protocol::fuzz_properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz_properties::server_frames(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzz_properties::client_message(text);
        fuzz_properties::presence_texts(text);
    }
});
