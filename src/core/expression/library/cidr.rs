//! IP addresses and networks, as Go's `netip` reads them; zones and IPv4 inside IPv6 are refused.

use super::{Outcome, no_overload};
use crate::core::expression::{meter::Meter, problem::EvaluationError, program::Native, value::Value};
use std::{fmt, net::IpAddr};

/// An address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core::expression) struct Cidr {
    address: IpAddr,
    length: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.rsplit_once('/')?;
        let address = ip(address)?;
        let is_plain = length == "0" || (!length.starts_with(['0', '+']) && !length.is_empty());
        let length: u8 = length.parse().ok().filter(|_| is_plain)?;
        (length <= width(&address)).then_some(Self { address, length })
    }

    fn masked(self) -> Self {
        Self { address: masked(self.address, self.length), length: self.length }
    }

    fn contains(self, address: &IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(*address, self.length) == self.masked().address
    }
}

fn width(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// An address; `None` when it is none, or an IPv4 address in IPv6 form.
fn ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(inner) if inner.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "ip" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => read_ip(text, meter).map(Value::Ip),
            Some(Value::Cidr(cidr)) => Ok(Value::Ip(cidr.address)),
            _ => no_overload(),
        },
        "isIP" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => {
                meter.bytes(text.len())?;
                Ok(Value::Bool(ip(text).is_some()))
            }
            _ => no_overload(),
        },
        "ip.isCanonical" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => Ok(Value::Bool(read_ip(text, meter)?.to_string() == **text)),
            _ => no_overload(),
        },
        "family" => |arguments, _| is(arguments, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |arguments, _| is(arguments, |ip| Value::Bool(ip.is_unspecified())),
        "isLoopback" => |arguments, _| is(arguments, |ip| Value::Bool(ip.is_loopback())),
        "isLinkLocalMulticast" => |arguments, _| is(arguments, |ip| Value::Bool(is_link_local_multicast(ip))),
        "isLinkLocalUnicast" => |arguments, _| is(arguments, |ip| Value::Bool(is_link_local(ip))),
        "isGlobalUnicast" => |arguments, _| is(arguments, |ip| Value::Bool(is_global(ip))),
        "cidr" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => read_cidr(text, meter).map(Value::Cidr),
            _ => no_overload(),
        },
        "isCIDR" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => {
                meter.bytes(text.len())?;
                Ok(Value::Bool(Cidr::parse(text).is_some()))
            }
            _ => no_overload(),
        },
        "containsIP" => |arguments, meter| match arguments {
            [Value::Cidr(cidr), Value::Ip(ip)] => Ok(Value::Bool(cidr.contains(ip))),
            [Value::Cidr(cidr), Value::Text(text)] => {
                meter.bytes(text.len())?;
                // Kubernetes says of a malformed address that there is no such overload.
                ip(text).map_or_else(no_overload, |ip| Ok(Value::Bool(cidr.contains(&ip))))
            }
            _ => no_overload(),
        },
        "containsCIDR" => |arguments, meter| match arguments {
            [Value::Cidr(cidr), Value::Cidr(other)] => Ok(Value::Bool(covers(*cidr, *other))),
            [Value::Cidr(cidr), Value::Text(text)] => Ok(Value::Bool(covers(*cidr, read_cidr(text, meter)?))),
            _ => no_overload(),
        },
        "masked" => |arguments, _| of(arguments, |cidr| Value::Cidr(cidr.masked())),
        "prefixLength" => |arguments, _| of(arguments, |cidr| Value::Int(cidr.length.into())),
        _ => return None,
    })
}

fn read_ip(text: &str, meter: &mut Meter) -> Result<IpAddr, EvaluationError> {
    meter.bytes(text.len())?;
    ip(text).ok_or_else(|| EvaluationError::invalid("no IP address"))
}

fn read_cidr(text: &str, meter: &mut Meter) -> Result<Cidr, EvaluationError> {
    meter.bytes(text.len())?;
    Cidr::parse(text).ok_or_else(|| EvaluationError::invalid("no network address"))
}

fn covers(network: Cidr, other: Cidr) -> bool {
    network.length <= other.length && network.contains(&other.address)
}

fn is<'v>(arguments: &[Value<'v>], answer: fn(&IpAddr) -> Value<'v>) -> Outcome<'v> {
    match arguments {
        [Value::Ip(ip)] => Ok(answer(ip)),
        _ => no_overload(),
    }
}

fn of<'v>(arguments: &[Value<'v>], answer: fn(Cidr) -> Value<'v>) -> Outcome<'v> {
    match arguments {
        [Value::Cidr(cidr)] => Ok(answer(*cidr)),
        _ => no_overload(),
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(ip) => ip.segments().first().is_some_and(|first| first & 0xff0f == 0xff02),
    }
}

/// As `netip.Addr.IsGlobalUnicast`: private addresses count.
fn is_global(ip: &IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(is_broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip))
}
