//! A pod gets its network in two halves: a namespace with an address, in which its processes may be made already, and what leads
//! there.

use std::{fs, net::Ipv4Addr, os::fd::AsRawFd, path::PathBuf};

use mk8s_supervisor::job;

use super::{Network, PodAddress};
use crate::{
    error::{Error, Result},
    names, netns,
    rtnl::Rtnl,
};

/// What a pod has that is attached by half.
#[must_use = "nothing leads to the pod yet"]
pub struct Attaching {
    network: Network,
    uid: String,
    address: PodAddress,
    /// A socket in the pod's namespace.
    inside: Rtnl,
}

impl Network {
    /// A fresh namespace with an address, a way out and lo up. What an earlier sandbox of the pod left is removed first.
    pub async fn attach(&self, uid: &str) -> Result<PodAddress> {
        let attaching = self.begin(uid).await?;
        let address = attaching.address.clone();
        attaching.connect().await?;
        Ok(address)
    }

    /// First half of [`Self::attach`]: the namespace is there, and the address nobody else's. A failure leaves neither.
    pub async fn begin(&self, uid: &str) -> Result<Attaching> {
        if netns::path(uid).exists() {
            self.detach(uid).await?;
        }
        let ip = {
            let mut ipam = self.ipam();
            let ip = ipam
                .pool
                .allocate(uid)
                .ok_or(Error::NoFreeAddress(self.0.config.pod_cidr))?;
            ipam.save()?;
            ip
        };
        match namespace(uid).await {
            Ok((netns, inside)) => Ok(Attaching {
                network: self.clone(),
                uid: uid.to_owned(),
                address: PodAddress { ip, netns },
                inside,
            }),
            Err(error) => Err(self.take_back(uid, error).await),
        }
    }

    async fn take_back(&self, uid: &str, why: Error) -> Error {
        if let Err(error) = self.detach(uid).await {
            tracing::warn!(uid, %error, "what was made of the pod's network stays until the next start");
        }
        why
    }
}

/// Its path, and a socket in it.
async fn namespace(uid: &str) -> Result<(PathBuf, Rtnl)> {
    let runtime = tokio::runtime::Handle::current();
    let name = uid.to_owned();
    let made = job::blocking("network-netns", move || {
        netns::create(&name, move || {
            refuse_routers()?;
            let _context = runtime.enter();
            Rtnl::open()
        })
    });
    let (path, inside) = made.await??;
    Ok((path, inside?))
}

impl Attaching {
    pub fn address(&self) -> &PodAddress {
        &self.address
    }

    /// Second half of [`Network::attach`]. A failure leaves nothing of the pod's network, its namespace and address included.
    pub async fn connect(self) -> Result<()> {
        match self.lead_there().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.network.take_back(&self.uid, error).await),
        }
    }

    async fn lead_there(&self) -> Result<()> {
        let (inner, inside) = (&self.network.0, &self.inside);
        let PodAddress { ip, netns: path } = &self.address;
        let file = fs::File::open(path).map_err(|source| Error::io(format!("open {}", path.display()), source))?;
        let mac = names::pod_mac(*ip);
        let name = names::veth(&self.uid);
        // What goes to one socket together is taken in its order, and costs one wake-up instead of one each.
        let (veth, ()) = futures::try_join!(
            inner
                .rtnl
                .add_veth(&name, &inner.bridge, file.as_raw_fd(), mac, inner.mtu),
            inside.set_up(1),
        )?;
        futures::try_join!(
            inner.rtnl.set_pod_port(&veth, mac),
            inner.rtnl.set_neighbour(inner.bridge.index, *ip, mac),
            self.set_up_inside(*ip),
        )?;
        Ok(())
    }

    async fn set_up_inside(&self, ip: Ipv4Addr) -> Result<()> {
        let inside = &self.inside;
        let Some(eth0) = inside.link("eth0").await? else {
            let (name, path) = (names::veth(&self.uid), self.address.netns.display());
            return Err(Error::Invalid(format!("link {name} has no end in {path}")));
        };
        let gateway = self.network.gateway();
        futures::try_join!(
            inside.set_up(eth0.index),
            inside.add_address(eth0.index, ip, 32),
            inside.set_neighbour(eth0.index, gateway, names::pod_mac(gateway)),
            inside.set_pod_routes(eth0.index, gateway),
        )?;
        Ok(())
    }
}

/// In a pod's namespace, for all links to come: no neighbour on the bridge makes itself the pod's router.
fn refuse_routers() -> Result<()> {
    let path = "/proc/sys/net/ipv6/conf/default/accept_ra";
    match fs::write(path, "0") {
        // A kernel without IPv6.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| Error::io(format!("write {path}"), source)),
    }
}
