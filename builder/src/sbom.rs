//! The software bill of materials of a generation.
//! Must not know: anything but the manifest.
//! Spec: SPDX 2.3 (ISO/IEC 5962:2021 and its JSON form); package URLs for Debian packages.

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::manifest::{Artifact, Manifest, Package};

/// The SPDX document for a manifest: bytes of indented JSON with a line end.
pub fn write(manifest: &Manifest) -> Vec<u8> {
    let identity = Digest::of(&manifest.to_bytes()).hex();
    let mut packages = vec![node(manifest, &identity)];
    packages.extend(manifest.packages.iter().map(|p| debian(p, distribution(&manifest.base.name))));
    packages.extend(manifest.artifacts.iter().map(artifact));
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-Node",
    })];
    relationships.extend(packages[1..].iter().map(|p| {
        json!({
            "spdxElementId": "SPDXRef-Node",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": p["SPDXID"],
        })
    }));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", manifest.cluster, manifest.node),
        "documentNamespace": format!("https://spdx.org/spdxdocs/gt-image-{}-{identity}", manifest.node),
        "creationInfo": {
            "created": utc(manifest.epoch),
            "creators": [format!("Tool: {}", manifest.tool.replace(' ', "-"))],
        },
        "packages": packages,
        "relationships": relationships,
    });
    // A JSON value always has a text.
    let mut bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn node(manifest: &Manifest, identity: &str) -> Value {
    let mut value = package("SPDXRef-Node", &manifest.node, identity, "NOASSERTION");
    value["primaryPackagePurpose"] = json!("OPERATING-SYSTEM");
    value
}

fn debian(p: &Package, distribution: &str) -> Value {
    let id = format!("SPDXRef-Package-{}", id_text(&p.name));
    let mut value = package(&id, &p.name, &p.version, "NOASSERTION");
    value["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": p.sha256 }]);
    value["externalRefs"] = json!([{
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": format!(
            "pkg:deb/debian/{}@{}?arch={}&distro={distribution}",
            percent(&p.name),
            percent(&p.version),
            p.architecture
        ),
    }]);
    value
}

fn artifact(a: &Artifact) -> Value {
    let id = format!("SPDXRef-Artifact-{}", id_text(&a.name));
    let licence = if a.licence.is_empty() { "NOASSERTION" } else { &a.licence };
    let mut value = package(&id, &a.name, &a.sha256, licence);
    value["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": a.sha256 }]);
    value
}

fn package(id: &str, name: &str, version: &str, licence: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
    })
}

/// `debian-trixie` is `trixie` to package URLs.
fn distribution(base: &str) -> &str {
    base.rsplit('-').next().unwrap_or(base)
}

/// Identifiers have letters, digits, `.` and `-` only (SPDX 2.3, section 3.2), and different names
/// must stay different.
fn id_text(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(b).to_string(),
            other => format!(".{other:02x}."),
        })
        .collect()
}

/// Percent-encoding as package URLs want it.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Seconds since 1970 as `2025-11-22T21:24:29Z`, by the civil calendar; years 1970 to 9999.
pub fn utc(seconds: i64) -> String {
    let seconds = seconds.clamp(0, 253_402_300_799);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 0000-03-01, so that a leap day is the last day of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::manifest;

    #[test]
    fn every_package_is_contained_in_the_node() {
        let document: Value = serde_json::from_slice(&write(&manifest())).unwrap();
        let packages = document["packages"].as_array().unwrap();
        assert_eq!(packages.len(), 4);
        assert_eq!(document["relationships"].as_array().unwrap().len(), 4);
        assert_eq!(packages[2]["SPDXID"], "SPDXRef-Package-libstdc.2b..2b.6");
        assert_eq!(
            packages[1]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libc6@1%3A2.0-1%2Bb1?arch=arm64&distro=trixie"
        );
        assert_eq!(packages[3]["licenseDeclared"], "BUSL-1.1");
        assert_eq!(document["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn the_calendar_is_right() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-5, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), want);
        }
    }
}
