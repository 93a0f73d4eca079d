//! Controllers and scheduler: what only one control plane of a cluster may run at a time. They run in a scope that can be
//! stopped and started again. What they hold of the cluster, informers and what allocators took from them, is the scope's: it
//! is read anew each time.

use std::sync::Arc;

use mk8s_apiserver::ApiServer;
use mk8s_client::Informers;
use mk8s_client::lease::{self, Election};
use mk8s_controllers::Context;
use mk8s_controllers::context::{ClientFor, Settings};
use mk8s_supervisor::{OnExit, Supervisor};

use crate::identity::{self, READER, user};

/// Asks for the lease: upstream's role for it fits.
const ELECTOR: &str = "system:kube-controller-manager";

/// What they act on.
#[derive(Clone)]
pub(crate) struct Components {
    pub(crate) controllers: Settings,
    pub(crate) scheduler: mk8s_scheduler::config::Config,
}

/// Starts them whenever the election is won.
pub(crate) fn elect(server: &Arc<ApiServer>, config: Components, election: Election, supervisor: &Supervisor) {
    server.components_elected(&election.namespace, &election.name);
    let client = identity::client(server, ELECTOR);
    let start = {
        let server = server.clone();
        Arc::new(move |scope: &Supervisor| start(&server, &config, identity::clients(&server), scope))
    };
    let owner = supervisor.clone();
    // Fatal: it ends early only where two might be at work, or where nobody knows what became of its scope.
    supervisor.spawn("leader-election", OnExit::Fatal, move |token| {
        let (client, election, owner, start) = (client.clone(), election.clone(), owner.clone(), start.clone());
        lease::lead(client, election, owner, token, move |scope| start(scope))
    });
}

/// Starts them in a scope; each acts by the client that is made for its user.
pub(crate) fn start(server: &Arc<ApiServer>, config: &Components, clients: ClientFor, scope: &Supervisor) {
    let informers = Informers::fed(server.feed(user(READER)), scope).packed();
    let feeds = server.clone();
    let scheduler = clients("system:kube-scheduler");
    let context = Context::new(
        clients,
        Arc::new(move |name| feeds.feed(user(name))),
        informers.clone(),
        config.controllers.clone(),
        scope,
    );
    mk8s_controllers::run(&context);
    mk8s_scheduler::run(scheduler, informers, config.scheduler.clone(), &hostname(), scope);
    server.components_run(scope.token().clone());
}

/// Empty where the kernel does not tell; Events say no more with it than which of several schedulers it was.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
