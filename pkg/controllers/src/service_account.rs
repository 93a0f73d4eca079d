//! What every namespace has from the start: service account `default`, and the cluster's CA certificate for pods.
//!
//! Two controllers of one shape: each watches namespaces and its own objects, makes what is missing, repairs what was changed.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use mk8s_client::{Event, Informer};

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::namespace_terminating;
use crate::error::{Error, Tried, code};
use crate::meta::{self, Key};

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const WORKERS: usize = 2;

fn namespace_key(event: &Event<Namespace>) -> Vec<Key> {
    match event {
        Event::Applied { new, .. } if is_active(new) => vec![Key::new("", meta::name(&**new))],
        _ => Vec::new(),
    }
}

fn is_active(namespace: &Namespace) -> bool {
    !meta::deleting(namespace) && namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating")
}

/// Is the namespace there to be filled?
fn wants(namespaces: &Informer<Namespace>, name: &str) -> bool {
    namespaces.get(None, name).is_some_and(|n| is_active(&n))
}

struct DefaultAccount {
    ctx: Context,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

/// Runs the controller that makes service account `default`.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (namespaces, accounts) = (ctx.informers.of::<Namespace>(), ctx.informers.of::<ServiceAccount>());
    let mut driver = Driver::new("service-account-controller", &ctx.scope);
    driver.watch(&namespaces, namespace_key);
    driver.watch(&accounts, |event| match event {
        Event::Deleted(old) if meta::name(&**old) == DEFAULT => vec![Key::new("", meta::namespace(&**old))],
        _ => Vec::new(),
    });
    driver
        .run(
            WORKERS,
            DefaultAccount {
                ctx,
                namespaces,
                accounts,
            },
        )
        .await
}

impl Reconcile for DefaultAccount {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let DefaultAccount {
            ctx,
            namespaces,
            accounts,
        } = self;
        if !wants(namespaces, &key.name) || accounts.get(Some(&key.name), DEFAULT).is_some() {
            return Ok(Next::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        made(
            ctx.api::<ServiceAccount>(&key.name)
                .create(&PostParams::default(), &account)
                .await,
        )
        .tried(|| format!("create ServiceAccount {}/{DEFAULT}", key.name))?;
        Ok(Next::Done)
    }
}

/// Made by someone else meanwhile, or no longer wanted, is as good.
fn made<K>(result: Result<K, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(e) if code(&e) == Some(409) || namespace_terminating(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

struct RootCaPublisher {
    ctx: Context,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

/// Runs the controller that publishes the cluster's CA certificate.
pub async fn run_root_ca(ctx: Context) -> Result<(), Error> {
    let namespaces = ctx.informers.of::<Namespace>();
    let maps = ctx.informers.of_where::<ConfigMap>(&format!("metadata.name={ROOT_CA}"));
    let mut driver = Driver::new("root-ca-cert-publisher", &ctx.scope);
    driver.watch(&namespaces, namespace_key);
    driver.watch(&maps, |event| vec![Key::new("", meta::namespace(&**event.object()))]);
    driver.run(WORKERS, RootCaPublisher { ctx, namespaces, maps }).await
}

impl Reconcile for RootCaPublisher {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let RootCaPublisher { ctx, namespaces, maps } = self;
        if wants(namespaces, &key.name) {
            publish(ctx, &key.name, maps.get(Some(&key.name), ROOT_CA).as_deref()).await?;
        }
        Ok(Next::Done)
    }
}

async fn publish(ctx: &Context, namespace: &str, known: Option<&ConfigMap>) -> Result<(), Error> {
    let wanted = root_ca(&ctx.settings.root_ca);
    let api = ctx.api::<ConfigMap>(namespace);
    let Some(known) = known else {
        return made(api.create(&PostParams::default(), &wanted).await)
            .tried(|| format!("create ConfigMap {namespace}/{ROOT_CA}"));
    };
    if known.data == wanted.data {
        return Ok(());
    }
    let repaired = ConfigMap {
        data: wanted.data,
        ..known.clone()
    };
    api.replace(ROOT_CA, &PostParams::default(), &repaired)
        .await
        .tried_if_exists(|| format!("repair ConfigMap {namespace}/{ROOT_CA}"))?;
    Ok(())
}

fn root_ca(certificate: &str) -> ConfigMap {
    let mut metadata = ObjectMeta {
        name: Some(ROOT_CA.to_owned()),
        ..ObjectMeta::default()
    };
    meta::set_annotation(
        &mut metadata,
        "kubernetes.io/description",
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP \
         or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
    );
    ConfigMap {
        metadata,
        data: Some([(CA_KEY.to_owned(), certificate.to_owned())].into()),
        ..ConfigMap::default()
    }
}
