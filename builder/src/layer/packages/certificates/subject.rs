//! The number by which OpenSSL finds a certificate: a hash of its subject in a canonical form.
//! Must not know: files, PEM.
//! Spec: X.690 (DER), RFC 5280 section 4.1; OpenSSL's `crypto/x509/x_name.c`, `x509_name_canon`.

use sha1::{Digest as _, Sha1};

type Result<T> = std::result::Result<T, &'static str>;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8: u8 = 0x0c;
/// `[0]`, which holds the version.
const VERSION: u8 = 0xa0;

/// The first four bytes of SHA-1 over the canonical subject, the lowest first.
pub(super) fn hash(certificate: &[u8]) -> Result<u32> {
    let canonical = canonical(subject(certificate)?)?;
    let digest = Sha1::digest(&canonical);
    Ok(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
}

/// The content of the subject: version, serial number, algorithm, issuer and validity stand before.
fn subject(certificate: &[u8]) -> Result<&[u8]> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = take(fields)?.rest;
    }
    for _ in 0..4 {
        fields = take(fields)?.rest;
    }
    Ok(expect(fields, SEQUENCE)?.0)
}

/// All sets of the name, without the sequence around them; text as UTF-8 in lower case, with single
/// spaces and none at the ends.
fn canonical(mut name: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while !name.is_empty() {
        let (mut set, rest) = expect(name, SET)?;
        name = rest;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (attribute, rest) = expect(set, SEQUENCE)?;
            set = rest;
            let kind = take(attribute)?;
            let value = take(kind.rest)?;
            let mut content = attribute[..attribute.len() - kind.rest.len()].to_vec();
            match text(value.tag, value.content)? {
                Some(text) => content.extend(encode(UTF8, simplify(&text).as_bytes())),
                None => content.extend(encode(value.tag, value.content)),
            }
            attributes.push(encode(SEQUENCE, &content));
        }
        // DER orders the members of a set by their bytes.
        attributes.sort();
        out.extend(encode(SET, &attributes.concat()));
    }
    Ok(out)
}

/// The text of a string type; none for a type that OpenSSL leaves as it is.
fn text(tag: u8, content: &[u8]) -> Result<Option<String>> {
    Ok(Some(match tag {
        UTF8 => String::from_utf8(content.into()).map_err(|_| "a subject that is not UTF-8")?,
        // PrintableString, T61String, IA5String, VisibleString: a byte a character.
        0x13 | 0x14 | 0x16 | 0x1a => content.iter().map(|&b| char::from(b)).collect(),
        // BMPString, UniversalString.
        0x1e => {
            let units: Vec<u16> = content.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
            String::from_utf16(&units).map_err(|_| "a subject that is not UTF-16")?
        }
        0x1c => content
            .chunks_exact(4)
            .map(|c| char::from_u32(u32::from_be_bytes([c[0], c[1], c[2], c[3]])))
            .collect::<Option<String>>()
            .ok_or("a subject that is not UCS-4")?,
        _ => return Ok(None),
    }))
}

fn simplify(text: &str) -> String {
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let words: Vec<&str> = text.split(space).filter(|word| !word.is_empty()).collect();
    words.join(" ").to_ascii_lowercase()
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

/// The first element of `bytes` and what follows it.
fn take(bytes: &[u8]) -> Result<Element<'_>> {
    const SHORT: &str = "ends too early";
    let (&tag, bytes) = bytes.split_first().ok_or(SHORT)?;
    let (&first, mut bytes) = bytes.split_first().ok_or(SHORT)?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        // Four bytes of length are more than any certificate has.
        if count == 0 || count > 4 || bytes.len() < count {
            return Err("a length that is none");
        }
        let (digits, rest) = bytes.split_at(count);
        len = digits.iter().fold(0, |len, &b| len << 8 | usize::from(b));
        bytes = rest;
    }
    if bytes.len() < len {
        return Err(SHORT);
    }
    let (content, rest) = bytes.split_at(len);
    Ok(Element { tag, content, rest })
}

fn expect(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8])> {
    let element = take(bytes)?;
    if element.tag == tag { Ok((element.content, element.rest)) } else { Err("is no X.509 certificate") }
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len().to_be_bytes();
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let start = len.iter().position(|&b| b != 0).unwrap_or(len.len());
            let digits = &len[start..];
            // At most eight digits.
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_made_simple() {
        for (given, want) in [("  A  b\tC ", "a b c"), ("", ""), ("ÄB", "Äb")] {
            assert_eq!(simplify(given), want);
        }
    }

    #[test]
    fn long_lengths_are_read_back() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let bytes = encode(SEQUENCE, &vec![7; len]);
            let (content, rest) = expect(&bytes, SEQUENCE).unwrap();
            assert_eq!((content.len(), rest.len()), (len, 0));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = hash(&bytes);
            let _ = canonical(&bytes);
        }
    }
}
