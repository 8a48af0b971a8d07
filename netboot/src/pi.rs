//! A Raspberry Pi's firmware as a client: what it asks by DHCP and TFTP, byte for byte. `doctor` plays
//! it against a network, and the tests against the server.
//! Must not know: images, nodes of a description.
