//! Who a certificate or a request names: read in one place, so that who approves it, the API server and the node's server
//! can't take different values of it for the user.

use rustls::pki_types::CertificateDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::der;

/// User and groups, as a subject's CN and its Os give them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// Why a subject names nobody; the text goes into a condition or a Status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("can't be parsed: {0}")]
    Parse(String),
    #[error("the subject has {0} common names; a user has one")]
    CommonNames(usize),
}

impl Subject {
    /// The user of a verified client certificate: exactly one common name, which is not empty.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Subject, SubjectError> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|cause| SubjectError::Parse(cause.to_string()))?;
        let subject = Subject::read(parsed.subject())?;
        match subject.common_name.is_empty() {
            true => Err(SubjectError::CommonNames(0)),
            false => Ok(subject),
        }
    }

    /// At most one common name: a request that only asks for subjectAltNames has none.
    pub(crate) fn read(name: &X509Name<'_>) -> Result<Subject, SubjectError> {
        let common_names = name.iter_common_name().map(text).collect::<Result<Vec<_>, _>>()?;
        let organizations = name.iter_organization().map(text).collect::<Result<_, _>>()?;
        match common_names.len() {
            0 | 1 => Ok(Subject {
                common_name: common_names.into_iter().next().unwrap_or_default(),
                organizations,
            }),
            several => Err(SubjectError::CommonNames(several)),
        }
    }

    /// The Name of a certificate that says this and nothing else.
    pub(crate) fn to_der(&self) -> Vec<u8> {
        const COMMON_NAME: u8 = 3;
        const ORGANIZATION: u8 = 10;
        let organizations = self.organizations.iter().map(|group| attribute(ORGANIZATION, group));
        let common_name = Some(&self.common_name).filter(|name| !name.is_empty());
        let common_name = common_name.map(|name| attribute(COMMON_NAME, name));
        let attributes: Vec<Vec<u8>> = organizations.chain(common_name).collect();
        der::tlv(der::SEQUENCE, &attributes.concat())
    }
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, SubjectError> {
    let text = attribute.as_str().map(str::to_string);
    text.map_err(|cause| SubjectError::Parse(cause.to_string()))
}

/// A set of one attribute of X.520's, 2.5.4.`arc`.
fn attribute(arc: u8, value: &str) -> Vec<u8> {
    let pair = der::sequence(&[
        &der::tlv(der::OID, &[0x55, 4, arc]),
        &der::tlv(der::UTF8_STRING, value.as_bytes()),
    ]);
    der::tlv(der::SET, &pair)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use x509_parser::prelude::FromDer;

    use super::*;

    /// What signs this subject reads it back, several groups in their order.
    #[test]
    fn what_is_written_is_read() {
        let groups = |groups: &[&str]| groups.iter().map(|group| (*group).to_string()).collect();
        for (common_name, organizations) in [
            ("system:node:n1", groups(&["system:nodes"])),
            ("jäne", groups(&["b", "a", "c"])),
            ("", groups(&["a"])),
            ("", groups(&[])),
        ] {
            let subject = Subject {
                common_name: common_name.into(),
                organizations,
            };
            let written = subject.to_der();
            let (rest, name) = X509Name::from_der(&written).unwrap();
            assert_eq!((rest.len(), Subject::read(&name).unwrap()), (0, subject));
        }
    }

    #[test]
    fn several_common_names_are_nobodys() {
        for sets in [
            // In sets of their own, and in one set.
            [attribute(3, "a"), attribute(3, "b")].concat(),
            der::tlv(der::SET, &[&attribute(3, "a")[2..], &attribute(3, "a")[2..]].concat()),
        ] {
            let written = der::tlv(der::SEQUENCE, &sets);
            let (_, name) = X509Name::from_der(&written).unwrap();
            assert_eq!(Subject::read(&name), Err(SubjectError::CommonNames(2)));
        }
    }
}
