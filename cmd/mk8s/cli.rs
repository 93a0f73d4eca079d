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
    disable_version_flag = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Make this host a cluster: control plane and node
    Init(Box<Init>),
    /// Make this host a node of a cluster
    Join(Box<Join>),
    /// Start mk8s on a host that was set up before
    Start(Where),
    /// Stop mk8s; pods keep running
    Stop(Where),
    /// Run in the foreground what this host was set up for (the service's command)
    Run(Run),
    /// End everything of mk8s's on this host and remove all it made
    Reset(Reset),
    /// Show what runs here
    Status(Where),
    /// Manage the tokens that hosts join with
    Token(Token),
    /// Print a kubeconfig
    Kubeconfig(Kubeconfig),
    /// Show the version
    Version(Version),
    /// Print a shell's completion script
    Completion { shell: clap_complete::Shell },
}

/// How packets travel between the pods of different hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Inside UDP packets between the nodes
    Vxlan,
    /// By plain routes
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
    #[arg(long, env = "MK8S_APISERVER_ADVERTISE_ADDRESS")]
    pub apiserver_advertise_address: Option<Ipv4Addr>,
    #[arg(long, env = "MK8S_APISERVER_BIND_PORT")]
    pub apiserver_bind_port: Option<u16>,
    /// Further names and addresses in the API server's certificate
    #[arg(long, env = "MK8S_APISERVER_CERT_EXTRA_SANS", value_delimiter = ',')]
    pub apiserver_cert_extra_sans: Vec<String>,
    #[arg(long, env = "MK8S_POD_NETWORK_CIDR")]
    pub pod_network_cidr: Option<Ipv4Net>,
    #[arg(long, env = "MK8S_SERVICE_CIDR")]
    pub service_cidr: Option<Ipv4Net>,
    #[arg(long, env = "MK8S_SERVICE_DNS_DOMAIN")]
    pub service_dns_domain: Option<String>,
    /// Pull the pause image from here instead of using the one in the binary
    #[arg(long, env = "MK8S_IMAGE_REPOSITORY")]
    pub image_repository: Option<String>,
    #[arg(long, env = "MK8S_KUBERNETES_VERSION")]
    pub kubernetes_version: Option<String>,
    /// The first join token, of the form abcdef.0123456789abcdef
    #[arg(long, env = "MK8S_TOKEN")]
    pub token: Option<String>,
    /// How long the first token lives; 0: for ever
    #[arg(long, env = "MK8S_TOKEN_TTL", default_value = "24h")]
    pub token_ttl: String,
    #[arg(long, env = "MK8S_NETWORK", value_enum)]
    pub network: Option<Network>,
    #[command(flatten)]
    pub node: NodeFlags,
}

#[derive(Args, Clone)]
pub struct Join {
    /// ADDRESS:PORT of the cluster's API server; none on a host that joined before
    pub server: Option<String>,
    #[arg(long, env = "MK8S_TOKEN", alias = "discovery-token", alias = "tls-bootstrap-token")]
    pub token: Option<String>,
    /// sha256:HEX of the cluster CA's public key
    #[arg(long, env = "MK8S_DISCOVERY_TOKEN_CA_CERT_HASH", value_delimiter = ',')]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// Trust whichever CA the server shows, as far as the token signed it
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    #[command(flatten)]
    pub node: NodeFlags,
}

/// What init and join share.
#[derive(Args, Clone)]
pub struct NodeFlags {
    #[arg(long, env = "MK8S_NODE_NAME")]
    pub node_name: Option<String>,
    /// The node's own address [default: init: the advertised one; join: the source of the route to the server]
    #[arg(long, env = "MK8S_NODE_IP")]
    pub node_ip: Option<Ipv4Addr>,
    #[arg(long, env = "MK8S_CRI_SOCKET")]
    pub cri_socket: Option<String>,
    #[arg(long, env = "MK8S_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// KEY[=VALUE]:EFFECT
    #[arg(long, env = "MK8S_REGISTER_WITH_TAINTS", value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    /// With less left than this the node is under pressure: SIGNAL<AMOUNT or SIGNAL<PERCENT%, separated by commas
    /// [default: memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<5%,imagefs.available<1Gi,imagefs.inodesFree<5%]
    #[arg(long, env = "MK8S_EVICTION_HARD")]
    pub eviction_hard: Option<String>,
    /// A file of flags: `name: value` [default: /etc/mk8s/config.yaml, if it exists]
    #[arg(long, env = "MK8S_CONFIG")]
    pub config: Option<PathBuf>,
    #[arg(long, env = "MK8S_IGNORE_PREFLIGHT_ERRORS", value_delimiter = ',')]
    pub ignore_preflight_errors: Vec<String>,
}

#[derive(Args, Clone)]
pub struct Where {
    #[arg(long, env = "MK8S_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct Run {
    #[arg(long, env = "MK8S_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// In a session of its own: how init starts it where no init system does
    #[arg(long, hide = true)]
    pub detached: bool,
}

#[derive(Args, Clone)]
pub struct Reset {
    #[arg(long, env = "MK8S_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Args, Clone)]
pub struct Token {
    #[command(subcommand)]
    pub verb: TokenVerb,
    /// Of a user who may write Secrets in kube-system
    #[arg(
        long,
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
        /// The token; generated without it
        token: Option<String>,
        #[arg(long, default_value = "24h")]
        ttl: String,
        #[arg(long)]
        print_join_command: bool,
        #[arg(long, default_value = "")]
        description: String,
        #[arg(long, value_delimiter = ',')]
        usages: Vec<String>,
        #[arg(long, value_delimiter = ',')]
        groups: Vec<String>,
    },
    List,
    Delete {
        /// Tokens or their ids
        #[arg(required = true)]
        tokens: Vec<String>,
    },
    /// Print a random token that the cluster does not know
    Generate,
}

#[derive(Args, Clone)]
pub struct Kubeconfig {
    #[arg(long, env = "MK8S_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Make a certificate for this user instead of printing the administrator's file
    #[arg(long)]
    pub user: Option<String>,
    /// The user's groups
    #[arg(long, value_delimiter = ',')]
    pub groups: Vec<String>,
}

#[derive(Args, Clone)]
pub struct Version {
    /// `short`, `yaml` or `json`
    #[arg(long, short)]
    pub output: Option<String>,
}
