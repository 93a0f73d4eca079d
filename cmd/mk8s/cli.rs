//! The command line. Flags of `init` and `join` that kubeadm has too carry its names and meanings
//! (<https://kubernetes.io/docs/reference/setup-tools/kubeadm/>).

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::Ipv4Net;

#[derive(Parser)]
#[command(
    name = "mk8s",
    about = "A whole Kubernetes in one binary",
    disable_version_flag = true,
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "Examples:
  sudo mk8s init                                  make this host a cluster
  mk8s token create --print-join-command          the line to type on another host
  sudo mk8s join 10.0.0.1:6443 --token TOKEN --discovery-token-ca-cert-hash HASH
  sudo mk8s kubeconfig --user jane --groups dev   a kubeconfig for somebody else
  sudo mk8s reset                                 take all of it away again";

const INIT_EXAMPLES: &str = "Examples:
  sudo mk8s init
  sudo mk8s init --apiserver-advertise-address 10.0.0.1 --pod-network-cidr 10.42.0.0/16
  sudo mk8s init --apiserver-cert-extra-sans cluster.example.org,203.0.113.7
  sudo mk8s init --register-with-taints node-role.kubernetes.io/control-plane:NoSchedule

A host that was set up before is started if it is down; flags that say otherwise than its set-up are an error.";

const JOIN_EXAMPLES: &str = "Examples:
  sudo mk8s join 10.0.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:HEX
  sudo mk8s join                                  on a host that joined before: start it if it is down";

const RESET_NOTES: &str = "What stays: this program, images imported by hand, /etc/mk8s.

It needs containerd, which alone knows what there is mk8s's: where it does not answer, mk8s is stopped and nothing is removed,
and `mk8s reset` can be called again. Where containerd itself was removed from this host (neither its socket nor its program is
there), what it kept of pods and images stays in its directory, /var/lib/containerd. A reset that was interrupted goes on
where it was.";

#[derive(Subcommand)]
pub enum Verb {
    /// Make this host a cluster: control plane and node
    #[command(after_help = INIT_EXAMPLES)]
    Init(Box<Init>),
    /// Make this host a node of a cluster
    #[command(after_help = JOIN_EXAMPLES)]
    Join(Box<Join>),
    /// Start mk8s on a host that was set up before
    Start(Where),
    /// Stop mk8s; pods keep running
    Stop(Where),
    /// Run in the foreground what this host was set up for (the service's command)
    Run(Run),
    /// End everything of mk8s's on this host and remove all it made
    #[command(after_help = RESET_NOTES)]
    Reset(Reset),
    /// Show what runs here
    Status(Where),
    /// Manage the tokens that hosts join with
    Token(Token),
    /// Print a kubeconfig: the administrator's, or one made for a user
    Kubeconfig(Kubeconfig),
    /// Show the version of mk8s and of the Kubernetes in it
    Version(Version),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  source <(mk8s completion bash)")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How packets travel between the pods of different hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Inside UDP packets between the nodes
    Vxlan,
    /// By plain routes, where all hosts share a network that lets foreign addresses pass
    Routes,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Network::Vxlan => "vxlan",
            Network::Routes => "routes",
        })
    }
}

#[derive(Args, Clone)]
pub struct Init {
    /// The address that the API server tells others [default: of the default route's interface]
    #[arg(long, value_name = "IP", env = "MK8S_APISERVER_ADVERTISE_ADDRESS")]
    pub apiserver_advertise_address: Option<Ipv4Addr>,
    /// The port that the API server listens on [default: 6443]
    #[arg(long, value_name = "PORT", env = "MK8S_APISERVER_BIND_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub apiserver_bind_port: Option<u16>,
    /// Further names and addresses in the API server's certificate
    #[arg(
        long,
        value_name = "NAME|IP",
        env = "MK8S_APISERVER_CERT_EXTRA_SANS",
        value_delimiter = ','
    )]
    pub apiserver_cert_extra_sans: Vec<String>,
    /// The range of the pods' addresses, of which each node gets a /24 [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR", env = "MK8S_POD_NETWORK_CIDR")]
    pub pod_network_cidr: Option<Ipv4Net>,
    /// The range of the Services' addresses [default: 10.96.0.0/16]
    #[arg(long, value_name = "CIDR", env = "MK8S_SERVICE_CIDR")]
    pub service_cidr: Option<Ipv4Net>,
    /// The domain of the Services' names [default: cluster.local]
    #[arg(long, value_name = "DOMAIN", env = "MK8S_SERVICE_DNS_DOMAIN")]
    pub service_dns_domain: Option<String>,
    /// Pull the pause image from here instead of using the one in the binary
    #[arg(long, value_name = "REPOSITORY", env = "MK8S_IMAGE_REPOSITORY")]
    pub image_repository: Option<String>,
    /// For kubeadm's scripts: any other than the version built in fails the check KubernetesVersion
    #[arg(long, value_name = "VERSION", env = "MK8S_KUBERNETES_VERSION")]
    pub kubernetes_version: Option<String>,
    /// The first join token, of the form abcdef.0123456789abcdef [default: a random one]
    #[arg(long, value_name = "TOKEN", env = "MK8S_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// How long the first token lives; 0: for ever
    #[arg(long, value_name = "DURATION", env = "MK8S_TOKEN_TTL", default_value = "24h")]
    pub token_ttl: String,
    /// How packets travel between the pods of different hosts [default: vxlan]
    #[arg(long, value_name = "MODE", env = "MK8S_NETWORK", value_enum)]
    pub network: Option<Network>,
    /// Built-in parts to do without, because something else does their work, or nobody is to
    #[arg(long, value_name = "PART", env = "MK8S_DISABLE", value_enum, value_delimiter = ',')]
    pub disable: Vec<Part>,
    /// The scheduler's configuration, a KubeSchedulerConfiguration, read at each start [default: upstream's defaults]
    #[arg(long, value_name = "FILE", env = "MK8S_SCHEDULER_CONFIG", value_parser = absolute)]
    pub scheduler_config: Option<PathBuf>,
    #[command(flatten)]
    pub node: NodeFlags,
}

/// What a cluster can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The class of volumes on the nodes' own disks
    LocalStorage,
    /// Services of type LoadBalancer get the nodes' addresses
    Servicelb,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::LocalStorage => "local-storage",
            Part::Servicelb => "servicelb",
        })
    }
}

#[derive(Args, Clone)]
pub struct Join {
    /// ADDRESS:PORT of the cluster's API server; none on a host that joined before
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
    /// The token that the master gave out
    #[arg(
        long,
        value_name = "TOKEN",
        env = "MK8S_TOKEN",
        hide_env_values = true,
        alias = "discovery-token",
        alias = "tls-bootstrap-token"
    )]
    pub token: Option<String>,
    /// sha256:HEX of the cluster CA's public key, by which the cluster is known to be the right one
    #[arg(
        long,
        value_name = "HASH",
        env = "MK8S_DISCOVERY_TOKEN_CA_CERT_HASH",
        value_delimiter = ','
    )]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// Trust whichever CA the server shows, as far as the token signed it
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    #[command(flatten)]
    pub node: NodeFlags,
}

/// A path that means the same from every folder: it is written down, and used by the service after a reboot.
fn absolute(path: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}

/// What init and join share.
#[derive(Args, Clone)]
pub struct NodeFlags {
    /// The node's name [default: the host's]
    #[arg(long, value_name = "NAME", env = "MK8S_NODE_NAME")]
    pub node_name: Option<String>,
    /// The node's own address [default: init: the advertised one; join: the source of the route to the server]
    #[arg(long, value_name = "IP", env = "MK8S_NODE_IP")]
    pub node_ip: Option<Ipv4Addr>,
    /// containerd's socket [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "PATH", env = "MK8S_CRI_SOCKET")]
    pub cri_socket: Option<String>,
    /// Where mk8s keeps the cluster's objects, keys and the node's state [default: /var/lib/mk8s]
    #[arg(long, value_name = "DIR", env = "MK8S_DATA_DIR", value_parser = absolute)]
    pub data_dir: Option<PathBuf>,
    /// Taints that the node registers with, separated by commas
    #[arg(
        long,
        value_name = "KEY[=VALUE]:EFFECT",
        env = "MK8S_REGISTER_WITH_TAINTS",
        value_delimiter = ','
    )]
    pub register_with_taints: Vec<String>,
    /// With less left than this the node is under pressure, separated by commas
    /// [default: memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<5%,imagefs.available<1Gi,imagefs.inodesFree<5%]
    #[arg(long, value_name = "SIGNAL<AMOUNT", env = "MK8S_EVICTION_HARD")]
    pub eviction_hard: Option<String>,
    /// A file of flags: `name: value` [default: /etc/mk8s/config.yaml, if it exists]
    #[arg(long, value_name = "FILE", env = "MK8S_CONFIG")]
    pub config: Option<PathBuf>,
    /// Checks whose failure is but a warning, separated by commas, or `all`
    #[arg(
        long,
        value_name = "CHECK",
        env = "MK8S_IGNORE_PREFLIGHT_ERRORS",
        value_delimiter = ','
    )]
    pub ignore_preflight_errors: Vec<String>,
}

#[derive(Args, Clone)]
pub struct Where {
    /// The data directory [default: the one that this host was set up with]
    #[arg(long, value_name = "DIR", env = "MK8S_DATA_DIR", value_parser = absolute)]
    pub data_dir: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct Run {
    #[command(flatten)]
    pub place: Where,
    /// In a session of its own: how init starts it where no init system does
    #[arg(long, hide = true)]
    pub detached: bool,
}

#[derive(Args, Clone)]
pub struct Reset {
    #[command(flatten)]
    pub place: Where,
    /// Do not ask
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Args, Clone)]
pub struct Token {
    #[command(subcommand)]
    pub verb: TokenVerb,
    /// The kubeconfig of a user who may write Secrets in kube-system
    #[arg(
        long,
        value_name = "FILE",
        env = "KUBECONFIG",
        default_value = "/etc/kubernetes/admin.conf",
        global = true
    )]
    pub kubeconfig: PathBuf,
}

#[derive(Subcommand, Clone)]
pub enum TokenVerb {
    /// Make a token known to the cluster and print it
    Create {
        /// The token [default: a random one]
        #[arg(value_name = "TOKEN")]
        token: Option<String>,
        /// How long it lives; 0: for ever
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        ttl: String,
        /// Print the whole command that joins a host by it
        #[arg(long)]
        print_join_command: bool,
        /// What it is for, shown by `token list`
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        /// What it may be used for: signing, authentication, separated by commas [default: both]
        #[arg(long, value_name = "USAGE", value_delimiter = ',')]
        usages: Vec<String>,
        /// The groups of who shows it, separated by commas [default: system:bootstrappers:kubeadm:default-node-token]
        #[arg(long, value_name = "GROUP", value_delimiter = ',')]
        groups: Vec<String>,
    },
    /// Show the tokens that the cluster knows
    List,
    /// Make the cluster forget tokens
    Delete {
        /// Tokens or their ids
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
    /// Print a random token that the cluster does not know
    Generate,
}

#[derive(Args, Clone)]
pub struct Kubeconfig {
    #[command(flatten)]
    pub place: Where,
    /// Make a certificate for this user instead of printing the administrator's file
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The user's group
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub groups: Vec<String>,
}

#[derive(Args, Clone)]
pub struct Version {
    /// How to print it: `short`, `yaml` or `json`
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    /// Every command with the names that lead to it.
    fn commands(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name());
        for inner in command.get_subcommands() {
            commands(inner, &path, found);
        }
        found.push((path, command.clone()));
    }

    fn all_commands() -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        commands(&Cli::command(), "", &mut found);
        found
    }

    #[test]
    fn every_command_and_flag_is_explained() {
        for (path, command) in all_commands() {
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                let name = argument.get_id();
                assert!(argument.get_help().is_some(), "{path} {name} has no sentence");
                let values = argument.get_value_names().unwrap_or_default();
                let takes_value = argument.get_action().takes_values();
                assert!(!takes_value || !values.is_empty(), "{path} {name} has no value's name");
                for value in values.iter().filter(|_| takes_value) {
                    // Without a name of its own clap prints the flag's, in capitals.
                    let own = value.as_str() != name.as_str().to_uppercase() || value.len() <= 8;
                    assert!(own && value.len() <= 20, "{path} {name}: {value}");
                }
            }
        }
    }

    #[test]
    fn no_secret_of_the_environment_is_printed() {
        for (path, command) in all_commands() {
            for argument in command.get_arguments() {
                let variable = argument.get_env().unwrap_or_default().to_string_lossy();
                let is_secret = ["TOKEN", "KEY", "PASSWORD"].iter().any(|word| variable.ends_with(word));
                assert!(!is_secret || argument.is_hide_env_values_set(), "{path} {variable}");
            }
        }
    }

    #[test]
    fn a_data_directory_is_the_same_from_everywhere() {
        for command in ["init", "status"] {
            let matches = Cli::command()
                .try_get_matches_from(["mk8s", command, "--data-dir", "here"])
                .unwrap();
            let given: &PathBuf = matches
                .subcommand()
                .and_then(|(_, matches)| matches.get_one("data_dir"))
                .unwrap();
            assert_eq!(*given, std::env::current_dir().unwrap().join("here"), "{command}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
