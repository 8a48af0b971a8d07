//! Addresses: Ethernet, Internet and the Pi's own serial number.
//! Must not know: nodes, DHCP.
//! Spec: IEEE 802 (EUI-48 in its colon form), RFC 4632 (prefixes); the Pi 4's boot ROM names its TFTP
//! folder by the last eight hex digits of the serial number.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::name::NameError;

/// An Ethernet address of one card.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The six bytes in the order they are sent.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> MacAddr {
        MacAddr(octets)
    }
}

/// Six groups of two hex digits, joined by `:` or `-`, in either case.
impl FromStr for MacAddr {
    type Err = NameError;

    fn from_str(text: &str) -> Result<MacAddr, NameError> {
        let wrong = |wanted| NameError::new(text, "MAC address", wanted);
        let form = "wanted are six groups of two hex digits, such as `d8:3a:dd:89:ef:61`";
        let groups: Vec<&str> = text.split([':', '-']).collect();
        if groups.len() != 6 || groups.iter().any(|g| g.len() != 2 || !is_hex(g)) {
            return Err(wrong(form));
        }
        let mut octets = [0; 6];
        for (octet, group) in octets.iter_mut().zip(groups) {
            *octet = u8::from_str_radix(group, 16).map_err(|_| wrong(form))?;
        }
        // The lowest bit of the first byte marks a group of cards, which no card is.
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(wrong("it is a group's address or zero, which no card has"));
        }
        Ok(MacAddr(octets))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The last eight hex digits of a Pi's serial number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(u32);

impl From<u32> for Serial {
    fn from(number: u32) -> Serial {
        Serial(number)
    }
}

impl From<Serial> for u32 {
    fn from(serial: Serial) -> u32 {
        serial.0
    }
}

impl FromStr for Serial {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Serial, NameError> {
        let wanted = "wanted are the last eight hex digits of `Serial` in /proc/cpuinfo";
        let number = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8 && is_hex(text));
        number.map(Serial).ok_or_else(|| NameError::new(text, "serial number", wanted))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IPv4 network: its first address and the length of its prefix in bits, 1 to 30.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix_len: u8,
}

impl Subnet {
    /// The first address, which names the network and no machine.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Bits of the prefix.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The prefix as a mask, `255.255.240.0` for 20 bits.
    pub fn netmask(self) -> Ipv4Addr {
        // The length is 1 to 30, so the shift is 2 to 31.
        Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(self.prefix_len)))
    }

    /// The last address, which all machines of the network hear.
    pub fn broadcast(self) -> Ipv4Addr {
        self.address | !self.netmask()
    }

    /// True for every address from the first to the last.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address & self.netmask() == self.address
    }

    /// Why a machine of this network cannot have the address, if it cannot.
    pub fn objection(self, address: Ipv4Addr) -> Option<&'static str> {
        match address {
            _ if !self.contains(address) => Some("outside the subnet"),
            _ if address == self.address => Some("the network's own address of the subnet"),
            _ if address == self.broadcast() => Some("the broadcast address of the subnet"),
            _ => None,
        }
    }
}

/// `10.4.0.0/20`; bits after the prefix must be zero.
impl FromStr for Subnet {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Subnet, NameError> {
        let wrong = |wanted| NameError::new(text, "subnet", wanted);
        let form = "wanted is an IPv4 address and a prefix of 1 to 30 bits, such as `10.4.0.0/20`";
        let (address, prefix) = text.split_once('/').ok_or_else(|| wrong(form))?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong(form))?;
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix_len = prefix.parse().ok().filter(|len| digits && (1..=30).contains(len));
        let subnet = Subnet { address, prefix_len: prefix_len.ok_or_else(|| wrong(form))? };
        if address & subnet.netmask() != address {
            return Err(wrong("the bits after the prefix must be zero"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mac_addresses() {
        for (given, want) in [
            ("d8:3a:dd:89:ef:61", Some("d8:3a:dd:89:ef:61")),
            ("D8-3A-DD-89-EF-61", Some("d8:3a:dd:89:ef:61")),
            ("d8:3a:dd:89:ef", None),
            ("d8:3a:dd:89:ef:6", None),
            ("d8:3a:dd:89:ef:+1", None),
            ("01:00:5e:00:00:01", None),
            ("ff:ff:ff:ff:ff:ff", None),
            ("00:00:00:00:00:00", None),
            ("", None),
        ] {
            let found = given.parse::<MacAddr>().ok().map(|m| m.to_string());
            assert_eq!(found.as_deref(), want, "given {given:?}");
        }
    }

    #[test]
    fn serial_numbers() {
        for (given, want) in [
            ("d2a7ebcf", Some("d2a7ebcf")),
            ("D2A7EBCF", Some("d2a7ebcf")),
            ("0000000a", Some("0000000a")),
            ("10000000d2a7ebcf", None),
            ("+2a7ebcf", None),
            ("d2a7ebc", None),
            ("", None),
        ] {
            let found = given.parse::<Serial>().ok().map(|s| s.to_string());
            assert_eq!(found.as_deref(), want, "given {given:?}");
        }
    }

    #[test]
    fn subnets() {
        let net: Subnet = "10.4.0.0/20".parse().unwrap();
        assert_eq!(net.netmask(), Ipv4Addr::new(255, 255, 240, 0));
        assert_eq!(net.broadcast(), Ipv4Addr::new(10, 4, 15, 255));
        for (address, want) in [
            ([10, 4, 0, 10], None),
            ([10, 4, 15, 254], None),
            ([10, 4, 16, 0], Some("outside the subnet")),
            ([10, 4, 0, 0], Some("the network's own address of the subnet")),
            ([10, 4, 15, 255], Some("the broadcast address of the subnet")),
        ] {
            assert_eq!(net.objection(address.into()), want, "{address:?}");
        }
        for bad in ["10.4.0.0", "10.4.0.1/20", "10.4.0.0/0", "10.4.0.0/31", "10.4.0.0/+20", "10.4.0/20", ""] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn texts_are_read_back(octets in any::<[u8; 6]>(), number: u32, address: u32, len in 1u8..=30) {
            if let Ok(mac) = MacAddr::from(octets).to_string().parse::<MacAddr>() {
                prop_assert_eq!(mac.octets(), octets);
            }
            prop_assert_eq!(Serial(number).to_string().parse::<Serial>().unwrap(), Serial(number));
            let address = Ipv4Addr::from_bits(address & u32::MAX << (32 - u32::from(len)));
            let net = Subnet { address, prefix_len: len };
            prop_assert_eq!(net.to_string().parse::<Subnet>().unwrap(), net);
            prop_assert!(net.contains(net.broadcast()) && net.contains(net.address()));
        }
    }
}
