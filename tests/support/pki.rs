//! Certificates for tests: authorities, and what they sign.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub pem: String,
}

/// A certificate and its key, PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A client's certificate, made out to a subject of these parts, the most general first.
    pub fn client(&self, subject: &[(DnType, &str)]) -> Issued {
        self.issue(CertificateParams::default(), subject, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The same, of no use any more.
    pub fn expired(&self, subject: &[(DnType, &str)]) -> Issued {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue(params, subject, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A server's certificate for these host names.
    pub fn server(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        self.issue(params, &[(DnType::CommonName, "server")], ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        subject: &[(DnType, &str)],
        usage: ExtendedKeyUsagePurpose,
    ) -> Issued {
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            fingerprint: countersign::statement::Digest::of(certificate.der()).to_string(),
        }
    }
}
