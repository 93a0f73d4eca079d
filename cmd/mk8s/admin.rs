//! The administrator's kubeconfig, /etc/kubernetes/admin.conf: written by init, and its certificate renewed by the running
//! master as every other leaf is, together with the copies that users got and did not change.

use std::path::Path;
use std::sync::Arc;

use mk8s_pki::ca::Authority;
use mk8s_pki::issue::{self, Issued};
use mk8s_pki::kubeconfig::{self, Credential, Kubeconfig};
use mk8s_pki::rotation::{self, Holder};
use mk8s_pki::{files, layout};
use mk8s_supervisor::{OnExit, Supervisor, until};
use rustls::sign::CertifiedKey;

use crate::failure::{Failure, Result};
use crate::kubeconfig::renew_copies;
use crate::settings::{ADMIN_CONF, Settings};

const USER: &str = "kubernetes-admin";
const GROUP: &str = "kubeadm:cluster-admins";

fn issue(ca: &Authority) -> Result<Issued> {
    Ok(issue::client(ca, USER, Some(GROUP), issue::LIFE)?)
}

/// Writes the file anew.
pub fn write(settings: &Settings, ca: &Authority) -> Result<Arc<CertifiedKey>> {
    let admin = issue(ca)?;
    let credential = Credential::Certificate {
        certificate_pem: &admin.certificate_pem,
        key_pem: &admin.key_pem,
    };
    let file = Kubeconfig::new(settings.server(), ca.certificate_pem(), "kubernetes", USER, credential);
    files::write(ADMIN_CONF.as_ref(), file.to_yaml()?.as_bytes(), 0o600)?;
    Ok(admin.certified_key()?)
}

/// What the file's text asks for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// The certificate is young, or somebody else's.
    Nothing,
    /// One that `ca` signed has lived for two thirds of its life.
    Certificate,
}

fn due(text: &str, ca: &Authority, now: i64) -> Result<Due> {
    let Some((certificate, key)) = Kubeconfig::from_yaml(text, ADMIN_CONF)?.certificate()? else {
        return Ok(Due::Nothing);
    };
    let pair = issue::certified_key(&certificate, &key)?;
    let own = pair.cert.first().filter(|leaf| layout::signed_by(leaf, ca));
    let due = own.map(rotation::renew_at).transpose()?.is_some_and(|due| due <= now);
    Ok(if due { Due::Certificate } else { Due::Nothing })
}

/// Makes the file if it is missing, and renews its certificate when that is due.
pub fn refresh(settings: &Settings, ca: &Authority) -> Result<()> {
    if !Path::new(ADMIN_CONF).exists() {
        return write(settings, ca).map(drop);
    }
    let text = files::read_to_string(ADMIN_CONF.as_ref())?;
    match due(&text, ca, mk8s_pki::unix_now()) {
        Ok(Due::Certificate) => renew(settings, ca, &text).map(drop),
        Ok(Due::Nothing) => Ok(()),
        Err(cause) => Err(Failure::new(format!(
            "{ADMIN_CONF} is damaged ({cause}): move it away, and `mk8s start` makes it anew"
        ))),
    }
}

fn renew(settings: &Settings, ca: &Authority, text: &str) -> Result<Arc<CertifiedKey>> {
    let admin = issue(ca)?;
    let renewed = kubeconfig::with_certificate(text, &admin.certificate_pem, &admin.key_pem)?;
    files::write(ADMIN_CONF.as_ref(), renewed.as_bytes(), 0o600)?;
    renew_copies(&settings.kubeconfigs, &renewed);
    Ok(admin.certified_key()?)
}

/// Keeps the file fresh while the master runs.
pub fn keep_fresh(settings: &Settings, ca: &Arc<Authority>, supervisor: &Supervisor) -> Result<()> {
    refresh(settings, ca)?;
    let text = files::read_to_string(ADMIN_CONF.as_ref())?;
    let Some((certificate, key)) = Kubeconfig::from_yaml(&text, ADMIN_CONF)?.certificate()? else {
        return Ok(());
    };
    let pair = issue::certified_key(&certificate, &key)?;
    if !pair.cert.first().is_some_and(|leaf| layout::signed_by(leaf, ca)) {
        tracing::warn!(
            file = ADMIN_CONF,
            "holds a certificate of another CA, which is not renewed"
        );
        return Ok(());
    }
    let (holder, settings, ca) = (Holder::new(pair), settings.clone(), ca.clone());
    supervisor.spawn("renew-admin-conf", OnExit::Restart, move |token| {
        let (settings, ca) = (settings.clone(), ca.clone());
        let renew = move || {
            let renewed = files::read_to_string(ADMIN_CONF.as_ref())
                .map_err(Into::into)
                .and_then(|text| renew(&settings, &ca, &text));
            async move { renewed }
        };
        until(token, rotation::keep_fresh("admin.conf", holder.clone(), renew))
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_pki::ca;

    use super::*;

    #[test]
    fn the_certificate_is_renewed_at_two_thirds_of_its_life() {
        let own = ca::create("kubernetes").unwrap();
        let admin = issue(&own).unwrap();
        let credential = Credential::Certificate {
            certificate_pem: &admin.certificate_pem,
            key_pem: &admin.key_pem,
        };
        let file = Kubeconfig::new("https://a:1", own.certificate_pem(), "kubernetes", USER, credential);
        let text = file.to_yaml().unwrap();
        let now = mk8s_pki::unix_now();
        assert_eq!(due(&text, &own, now).unwrap(), Due::Nothing);
        assert_eq!(due(&text, &own, now + issue::LIFE / 2).unwrap(), Due::Nothing);
        for late in [issue::LIFE / 4 * 3, issue::LIFE + 1] {
            assert_eq!(due(&text, &own, now + late).unwrap(), Due::Certificate);
        }
        // What others put there is theirs.
        let other = ca::create("kubernetes").unwrap();
        assert_eq!(due(&text, &other, now + issue::LIFE).unwrap(), Due::Nothing);
        let token = Kubeconfig::new("https://a:1", "CA", "kubernetes", USER, Credential::Token("t"));
        assert_eq!(due(&token.to_yaml().unwrap(), &own, now).unwrap(), Due::Nothing);
    }
}
