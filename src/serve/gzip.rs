//! Whether a client takes gzip, and gzip.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// Whether Accept-Encoding asks for gzip: RFC 9110, 12.5.3. A quality of 0 refuses it; what can't be read asks for
/// nothing.
#[must_use]
pub fn is_asked(headers: &HeaderMap) -> bool {
    let mut any = false;
    for value in headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
        for item in value.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let takes = parts.all(|part| match part.split_once('=') {
                Some((name, weight)) if name.trim_end().eq_ignore_ascii_case("q") => {
                    weight.trim_start().parse::<f32>().is_ok_and(|weight| weight > 0.0)
                }
                _ => true,
            });
            match coding {
                coding if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") => return takes,
                "*" => any = takes,
                _ => {}
            }
        }
    }
    any
}

/// `text`, compressed fast rather than well.
///
/// # Errors
/// None when writing to memory.
pub fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    proptest::proptest! {
        #[test]
        fn any_header_can_be_read(bytes: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(ACCEPT_ENCODING, value);
                let _ = is_asked(&headers);
            }
        }
    }

    #[test]
    fn qualities_are_respected() {
        for (value, asked) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("gzip;q=x", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0, gzip", true),
            ("identity", false),
            ("gzipped", false),
            ("", false),
            (";;,,=", false),
            ("gzip;q=NaN", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(is_asked(&headers), asked, "{value}");
        }
        assert!(!is_asked(&HeaderMap::new()));
    }
}
