//! The address field of a rule: everybody, or a network.
//!
//! An IPv4 client that has come over an IPv6 socket has an address such as `::ffff:10.0.0.1`. Rules for IPv4 fit it (PgBouncer
//! forgets about them, also about `reject`), and so do wide rules for IPv6, such as `::/0`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::auth::rule_file::{Fault, Line, Word};

/// Bits before the IPv4 address in an IPv6 address that stands for one.
const MAPPED_BITS: u32 = 96;

/// Where clients may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    /// Anywhere.
    All,
    /// An IPv4 network: its first bits, and which bits are those.
    V4(u32, u32),
    /// An IPv6 network: likewise. Never a part of `::ffff:0:0/96`, which is written as IPv4.
    V6(u128, u128),
}

impl Addresses {
    pub(super) fn contain(self, address: IpAddr) -> bool {
        match (self, address) {
            (Addresses::All, _) => true,
            (Addresses::V4(net, mask), IpAddr::V4(v4)) => u32::from(v4) & mask == net,
            (Addresses::V4(net, mask), IpAddr::V6(v6)) => v6
                .to_ipv4_mapped()
                .is_some_and(|v4| u32::from(v4) & mask == net),
            (Addresses::V6(net, mask), IpAddr::V6(v6)) => u128::from(v6) & mask == net,
            (Addresses::V6(..), IpAddr::V4(_)) => false,
        }
    }
}

/// Reads `all`, `ADDRESS/BITS` or `ADDRESS MASK`.
pub(super) fn parse(line: &mut Line<'_>) -> Result<Addresses, Fault> {
    let word = line.single()?.ok_or("an address is missing")?;
    if word.is("all") {
        return Ok(Addresses::All);
    }
    let text = text(&word)?;
    if let Some((address, bits)) = text.split_once('/') {
        return with_bits(parse_ip(address)?, bits);
    }
    let address = parse_ip(text)?;
    let mask = line.single()?;
    let mask = mask
        .as_ref()
        .map(self::text)
        .transpose()?
        .unwrap_or_default();
    let Ok(mask) = mask.parse::<IpAddr>() else {
        let bits = whole(address);
        return Err(format!("the mask is missing: write {address}/{bits} for one address").into());
    };
    with_mask(address, mask)
}

fn text(word: &Word) -> Result<&str, Fault> {
    let text = std::str::from_utf8(word.name(&["all", "samehost", "samenet"])?);
    text.map_err(|_| no_address(&word.shown()))
}

fn parse_ip(text: &str) -> Result<IpAddr, Fault> {
    text.parse().map_err(|_| no_address(&format!("{text:?}")))
}

fn no_address(shown: &str) -> Fault {
    format!("{shown} is no IP address; host names, samehost and samenet are not supported").into()
}

/// The bits of an address of this kind.
fn whole(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => u32::BITS,
        IpAddr::V6(_) => u128::BITS,
    }
}

fn with_bits(address: IpAddr, bits: &str) -> Result<Addresses, Fault> {
    let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let number = bits.parse::<u32>().ok().filter(|_| is_number);
    match number.filter(|number| *number <= whole(address)) {
        Some(number) => network(address, number),
        None => Err(format!(
            "a number of bits up to {} is expected after /",
            whole(address)
        )
        .into()),
    }
}

fn with_mask(address: IpAddr, mask: IpAddr) -> Result<Addresses, Fault> {
    let (ones, zeros) = match (address, mask) {
        (IpAddr::V4(_), IpAddr::V4(mask)) => {
            let mask = u32::from(mask);
            (mask.leading_ones(), mask.trailing_zeros())
        }
        (IpAddr::V6(_), IpAddr::V6(mask)) => {
            let mask = u128::from(mask);
            (mask.leading_ones(), mask.trailing_zeros())
        }
        _ => return Err("address and mask are of different kinds".into()),
    };
    match ones + zeros == whole(address) {
        true => network(address, ones),
        false => Err(format!("{mask} is no mask: its ones must come first").into()),
    }
}

/// The network of an address and its first bits. The other bits must be zero: one host, or its network? PgBouncer warns and
/// then lets the rule fit nobody.
fn network(address: IpAddr, bits: u32) -> Result<Addresses, Fault> {
    let (found, first) = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0);
            let net = u32::from(v4) & mask;
            (Addresses::V4(net, mask), IpAddr::V4(Ipv4Addr::from(net)))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u128::BITS - bits).unwrap_or(0);
            let net = u128::from(v6) & mask;
            (Addresses::V6(net, mask), IpAddr::V6(Ipv6Addr::from(net)))
        }
    };
    if first != address {
        let one = whole(address);
        return Err(format!(
            "{address} has bits outside the mask: write {first}/{bits} for the network or {address}/{one} for one address"
        )
        .into());
    }
    match address {
        IpAddr::V6(v6) if bits >= MAPPED_BITS => match v6.to_ipv4_mapped() {
            Some(v4) => network(IpAddr::V4(v4), bits - MAPPED_BITS),
            None => Ok(found),
        },
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Addresses, String> {
        let mut line = Line::new(text.as_bytes()).unwrap();
        let read = parse(&mut line).map_err(|fault| fault.into_owned());
        assert!(read.is_err() || line.is_empty(), "{text}");
        read
    }

    #[track_caller]
    fn check(text: &str, inside: &[&str], outside: &[&str]) {
        let addresses = read(text).unwrap();
        for address in inside {
            assert!(
                addresses.contain(address.parse().unwrap()),
                "{text} {address}"
            );
        }
        for address in outside {
            assert!(
                !addresses.contain(address.parse().unwrap()),
                "{text} {address}"
            );
        }
    }

    #[test]
    fn networks() {
        check("all", &["1.2.3.4", "::1"], &[]);
        check("0.0.0.0/0", &["1.2.3.4", "::ffff:1.2.3.4"], &["::1"]);
        check("::/0", &["::1", "::ffff:1.2.3.4"], &["1.2.3.4"]);
        let net = ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3"];
        let not = [
            "10.2.0.0",
            "10.0.255.255",
            "::ffff:10.2.0.0",
            "::10.1.2.3",
            "::1",
        ];
        for text in [
            "10.1.0.0/16",
            "10.1.0.0 255.255.0.0",
            "\"10.1.0.0/16\"",
            "::ffff:10.1.0.0/112",
        ] {
            check(text, &net, &not);
        }
        check("10.0.0.1/32", &["10.0.0.1"], &["10.0.0.0", "10.0.0.2"]);
        check("10.0.0.1 255.255.255.255", &["10.0.0.1"], &["10.0.0.2"]);
        check("0.0.0.0 0.0.0.0", &["10.0.0.1"], &[]);
        check(
            "fe80::/10",
            &["fe80::1", "febf::1"],
            &["fec0::1", "1.2.3.4"],
        );
        check("fe80:: ffc0::", &["fe80::1"], &["fec0::1"]);
        check("::1/128", &["::1"], &["::2", "::ffff:0.0.0.1", "0.0.0.1"]);
    }

    #[test]
    fn what_is_no_network() {
        for (text, fault) in [
            ("", "an address is missing"),
            ("10.0.0.1", "the mask is missing: write 10.0.0.1/32"),
            ("::1 md5", "the mask is missing: write ::1/128"),
            (
                "10.0.0.1/24",
                "write 10.0.0.0/24 for the network or 10.0.0.1/32",
            ),
            ("::1/64", "write ::/64 for the network or ::1/128"),
            ("10.0.0.1 255.255.255.0", "bits outside the mask"),
            ("10.0.0.0/33", "up to 32"),
            ("::/129", "up to 128"),
            ("10.0.0.0/", "up to 32"),
            ("10.0.0.0/+8", "up to 32"),
            ("10.0.0.0 255.0.255.0", "255.0.255.0 is no mask"),
            ("10.0.0.0 ::", "different kinds"),
            ("010.0.0.0/8", "is no IP address"),
            ("10.0.0/24", "is no IP address"),
            ("fe80::1%eth0/128", "is no IP address"),
            ("db.example.com", "host names"),
            (".example.com", "host names"),
            ("samehost", "samehost"),
            ("ALL", "write the keyword as all"),
            ("\"all\"", "is no IP address"),
            ("10.0.0.1/32,10.0.0.2/32", "a list cannot stand here"),
            ("\"\"", "empty name"),
        ] {
            let read = read(text).unwrap_err();
            assert!(read.contains(fault), "{text}: {read}");
        }
    }

    proptest! {
        #[test]
        fn a_network_has_the_addresses_with_its_first_bits(net: u32, bits in 0..=32u32, address: u32) {
            let first = |ip: u32| (0..bits).map(|bit| ip >> (31 - bit) & 1).collect::<Vec<_>>();
            let net = if bits == 0 { 0 } else { net >> (32 - bits) << (32 - bits) };
            let network = network(IpAddr::V4(net.into()), bits).unwrap();
            let v4 = Ipv4Addr::from(address);
            let expected = first(net) == first(address);
            prop_assert_eq!(network.contain(v4.into()), expected);
            prop_assert_eq!(network.contain(v4.to_ipv6_mapped().into()), expected);
        }
    }
}
