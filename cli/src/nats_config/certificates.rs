//! A certificate authority for one cluster, and the certificates of its servers.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::failure::Failure;
use crate::files::Folder;

/// How long a server's certificate holds. Each run makes new ones.
const LIFE: Duration = Duration::from_secs(825 * 24 * 3600);

/// A certificate begins this long before now: the clocks of servers and roles differ.
const CLOCKS: Duration = Duration::from_secs(24 * 3600);

/// The authority that signs the servers' certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
pub(super) struct Certified {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// The authority in `folder`, which is made where there is none.
    pub(super) fn open(folder: &Folder) -> Result<Self, Failure> {
        let key = match folder.read("ca-key.pem")? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|error| format!("ca-key.pem: {error}"))?,
            None => {
                let key = KeyPair::generate()?;
                folder.write_private("ca-key.pem", &key.serialize_pem())?;
                folder.remove("ca.pem")?;
                key
            }
        };
        let pem = match folder.read("ca.pem")? {
            Some(pem) => pem,
            None => {
                let pem = authority().self_signed(&key)?.pem();
                folder.write("ca.pem", &pem)?;
                pem
            }
        };
        Ok(Self {
            issuer: Issuer::new(authority(), key),
            pem,
        })
    }

    /// Its certificate in PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for the server at `host`, a name or an IP address. Servers also show it to each other.
    pub(super) fn certify(&self, host: &str) -> Result<Certified, Failure> {
        let mut names = vec![host.to_owned()];
        if host == "127.0.0.1" || host == "::1" {
            names.push("localhost".to_owned());
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(host);
        params.not_before = (SystemTime::now() - CLOCKS).into();
        params.not_after = (SystemTime::now() + LIFE).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Certified {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What the authority's certificate says. It is made again from here and the key, so it must not change.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("tokenbus NATS authority");
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2055, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
