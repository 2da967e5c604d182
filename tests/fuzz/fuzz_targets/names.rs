//! Names of channels, sockets, users and apps.
#![no_main]

use dunlin_protocol::fuzz_properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz_properties::name(text));
