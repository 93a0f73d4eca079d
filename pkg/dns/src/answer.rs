//! From a query to its response, or to the decision that others have to be asked. Pure.

use std::{collections::HashSet, net::Ipv4Addr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, CNAME, NS, PTR, SOA, SRV},
    },
};

use crate::{
    Config,
    index::{Found, Index},
};

/// Short: what a Service is changes, and asking again is cheap.
pub const TTL: u32 = 5;
/// The largest UDP response that is not fragmented anywhere.
pub const MAX_UDP: u16 = 1232;
/// Steps from alias to alias within the cluster.
const MAX_ALIASES: usize = 8;

pub enum Decision {
    Answer(Message),
    /// The answer so far ends with an alias out of the cluster: ask for the target and add what it has.
    Chase(Message, Name),
    /// Nothing of the cluster's.
    Forward,
}

/// No record is shorter: its name as a pointer, type, class, TTL, and the length of its data.
const SHORTEST: usize = 12;

/// `query` has been parsed from what a client sent, `limit` is of the response's bytes: what can't fit is not even looked up,
/// so that a query costs what its answer does. One record more is: that is how [`fit`] sees that it has to be marked.
pub fn decide(config: &Config, index: &Index, query: &Message, limit: usize) -> Decision {
    let most = limit / SHORTEST + 1;
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(query.queries.iter().cloned());
    if let Some(edns) = &query.edns {
        let mut own = Edns::new();
        own.set_max_payload(MAX_UDP);
        response.set_edns(own);
        if edns.version() > 0 {
            return refuse(response, ResponseCode::BADVERS);
        }
    }
    let [question] = query.queries.as_slice() else {
        return refuse(response, ResponseCode::FormErr);
    };
    if query.metadata.message_type != MessageType::Query {
        return refuse(response, ResponseCode::FormErr);
    }
    if query.metadata.op_code != OpCode::Query {
        return refuse(response, ResponseCode::NotImp);
    }
    if question.query_class() != DNSClass::IN {
        return refuse(response, ResponseCode::Refused);
    }
    let labels = labels(question.name());
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let domain: Vec<&str> = config.domain.trim_end_matches('.').split('.').collect();
    if let Some(relative) = labels.strip_suffix(domain.as_slice()) {
        return Zone {
            config,
            index,
            domain: &domain,
            most,
        }
        .answer(response, question, relative);
    }
    match address_of(&labels) {
        Some(ip) => Zone {
            config,
            index,
            domain: &domain,
            most,
        }
        .reverse(response, question, ip),
        None => Decision::Forward,
    }
}

/// SERVFAIL, or another code, without records.
pub fn refuse(mut response: Message, code: ResponseCode) -> Decision {
    response.metadata.response_code = code;
    Decision::Answer(response)
}

struct Zone<'a> {
    config: &'a Config,
    index: &'a Index,
    domain: &'a [&'a str],
    /// Records.
    most: usize,
}

impl Zone<'_> {
    fn answer(&self, mut response: Message, question: &Query, relative: &[&str]) -> Decision {
        response.metadata.authoritative = true;
        let kind = question.query_type();
        let mut owner = question.name().clone();
        if relative.is_empty() && matches!(kind, RecordType::SOA | RecordType::NS) {
            response.add_answer(if kind == RecordType::SOA {
                self.soa()
            } else {
                self.ns(owner)
            });
            return Decision::Answer(response);
        }
        let mut found = self.index.find(relative, self.config.address, self.most);
        for _ in 0..MAX_ALIASES {
            let Some(target) = found.alias.take() else { break };
            let Ok(target) = Name::from_ascii(format!("{target}.")) else {
                return refuse(response, ResponseCode::ServFail);
            };
            response.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
            if kind == RecordType::CNAME {
                return Decision::Answer(response);
            }
            let labels = labels(&target);
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let Some(relative) = labels.strip_suffix(self.domain) else {
                return Decision::Chase(response, target);
            };
            found = self.index.find(relative, self.config.address, self.most);
            owner = target;
        }
        self.fill(&mut response, owner, kind, found);
        Decision::Answer(response)
    }

    fn fill(&self, response: &mut Message, owner: Name, kind: RecordType, found: Found) {
        let before = response.answers.len();
        match kind {
            RecordType::A | RecordType::ANY => {
                // Each caller begins with another one.
                let turn = if found.addresses.len() > 1 {
                    rand::random_range(0..found.addresses.len())
                } else {
                    0
                };
                let (late, early) = found.addresses.split_at(turn);
                for ip in early.iter().chain(late).take(self.most) {
                    response.add_answer(Record::from_rdata(owner.clone(), TTL, RData::A(A(*ip))));
                }
            }
            RecordType::SRV => {
                let weight = (100 / found.services.len().max(1)).max(1) as u16;
                let mut told = HashSet::new();
                for located in &found.services {
                    let Some(target) = self.absolute(&located.target) else {
                        continue;
                    };
                    let data = SRV::new(0, weight, located.port, target.clone());
                    response.add_answer(Record::from_rdata(owner.clone(), TTL, RData::SRV(data)));
                    if told.insert((&located.target, located.ip)) {
                        response.add_additional(Record::from_rdata(target, TTL, RData::A(A(located.ip))));
                    }
                }
            }
            _ => {}
        }
        if response.answers.len() == before {
            if !found.exists {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            response.add_authority(self.soa());
        }
    }

    fn reverse(&self, mut response: Message, question: &Query, ip: Ipv4Addr) -> Decision {
        let own = self.config.service_cidr.contains(&ip) || self.config.cluster_cidr.contains(&ip);
        let mut names = self
            .index
            .names_of(ip)
            .filter_map(|name| self.absolute(name))
            .peekable();
        if names.peek().is_none() && !own {
            return Decision::Forward;
        }
        response.metadata.authoritative = true;
        let known = names.peek().is_some();
        if matches!(question.query_type(), RecordType::PTR | RecordType::ANY) {
            for name in names.take(self.most) {
                response.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::PTR(PTR(name))));
            }
        }
        if response.answers.is_empty() {
            if !known {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            response.add_authority(self.soa());
        }
        Decision::Answer(response)
    }

    fn absolute(&self, relative: &str) -> Option<Name> {
        Name::from_ascii(format!("{relative}.{}.", self.domain.join("."))).ok()
    }

    fn apex(&self) -> Name {
        // The domain was checked at start.
        Name::from_ascii(format!("{}.", self.domain.join("."))).unwrap_or_default()
    }

    fn soa(&self) -> Record {
        let name = |prefix| self.absolute(prefix).unwrap_or_default();
        let data = SOA::new(name("ns.dns"), name("hostmaster"), 1, 7200, 1800, 86_400, TTL);
        Record::from_rdata(self.apex(), TTL, RData::SOA(data))
    }

    fn ns(&self, owner: Name) -> Record {
        Record::from_rdata(owner, TTL, RData::NS(NS(self.absolute("ns.dns").unwrap_or_default())))
    }
}

fn labels(name: &Name) -> Vec<String> {
    name.iter()
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .collect()
}

/// The address that a name under in-addr.arpa stands for.
fn address_of(labels: &[&str]) -> Option<Ipv4Addr> {
    let [d, c, b, a, "in-addr", "arpa"] = labels else {
        return None;
    };
    Some(Ipv4Addr::new(
        a.parse().ok()?,
        b.parse().ok()?,
        c.parse().ok()?,
        d.parse().ok()?,
    ))
}

/// What goes out: within `limit` bytes, as many answers as fit, and marked if that is not all of them.
pub fn fit(mut response: Message, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = response.to_vec().ok()?;
    if bytes.len() > limit {
        response.additionals.clear();
        bytes = response.to_vec().ok()?;
    }
    while bytes.len() > limit {
        response.metadata.truncation = true;
        if response.answers.is_empty() {
            return response.truncate().to_vec().ok();
        }
        let keep = response.answers.len() * limit / bytes.len();
        response.answers.truncate(keep.min(response.answers.len() - 1));
        bytes = response.to_vec().ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::index::tests::sample;

    fn config() -> Config {
        Config {
            domain: "cluster.local".into(),
            address: [10, 96, 0, 10].into(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        }
    }

    fn ask(name: &str, kind: RecordType) -> Decision {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        decide(&config(), &sample(), &query, 512)
    }

    fn told(name: &str, kind: RecordType) -> String {
        match ask(name, kind) {
            Decision::Forward => "forward".into(),
            Decision::Chase(_, target) => format!("chase {target}"),
            Decision::Answer(response) => {
                let mut answers: Vec<String> = response
                    .answers
                    .iter()
                    .map(|r| format!("{} {}", r.record_type(), r.data))
                    .collect();
                answers.sort();
                let code = response.metadata.response_code;
                format!("{code} {} soa {}", answers.join(", "), response.authorities.len())
            }
        }
    }

    #[test]
    fn responses() {
        use RecordType::*;
        for (name, kind, wanted) in [
            ("web.app.svc.cluster.local.", A, "No Error A 10.96.0.7 soa 0"),
            ("WEB.App.svc.Cluster.LOCAL.", A, "No Error A 10.96.0.7 soa 0"),
            ("web.app.svc.cluster.local.", AAAA, "No Error  soa 1"),
            ("none.app.svc.cluster.local.", A, "Non-Existent Domain  soa 1"),
            ("example.com.app.svc.cluster.local.", A, "Non-Existent Domain  soa 1"),
            (
                "db.app.svc.cluster.local.",
                A,
                "No Error A 10.244.0.5, A 10.244.1.6 soa 0",
            ),
            (
                "_http._tcp.web.app.svc.cluster.local.",
                SRV,
                "No Error SRV 0 100 80 web.app.svc.cluster.local. soa 0",
            ),
            ("out.app.svc.cluster.local.", A, "chase example.com."),
            ("out.app.svc.cluster.local.", CNAME, "No Error CNAME example.com. soa 0"),
            (
                "inner.app.svc.cluster.local.",
                A,
                "No Error A 10.96.0.7, CNAME web.app.svc.cluster.local. soa 0",
            ),
            (
                "7.0.96.10.in-addr.arpa.",
                PTR,
                "No Error PTR web.app.svc.cluster.local. soa 0",
            ),
            (
                "5.0.244.10.in-addr.arpa.",
                PTR,
                "No Error PTR db-0.db.app.svc.cluster.local. soa 0",
            ),
            ("8.0.96.10.in-addr.arpa.", PTR, "Non-Existent Domain  soa 1"),
            ("8.8.8.8.in-addr.arpa.", PTR, "forward"),
            ("example.com.", A, "forward"),
            ("mycluster.local.", A, "forward"),
        ] {
            assert_eq!(told(name, kind), wanted, "{name} {kind}");
        }
        assert!(told("cluster.local.", SOA).contains("SOA ns.dns.cluster.local. hostmaster.cluster.local."));
    }

    #[test]
    fn what_does_not_fit_is_marked() {
        let Decision::Answer(mut response) = ask("web.app.svc.cluster.local.", RecordType::A) else {
            panic!()
        };
        assert_eq!(fit(response.clone(), 512).unwrap(), response.to_vec().unwrap());
        let one = response.answers[0].clone();
        response.answers = vec![one; 100];
        let bytes = fit(response, 512).unwrap();
        let read = Message::from_vec(&bytes).unwrap();
        assert!(
            bytes.len() <= 512 && read.metadata.truncation && read.answers.len() > 15,
            "{}",
            read.answers.len()
        );
    }

    /// A thousand ports at a hundred endpoints: a query of 40 bytes was a hundred thousand records, compared each with each.
    #[test]
    fn no_more_is_made_than_fits() {
        let index = crate::index::tests::wide(1000, 100);
        let mut query = Message::query();
        let name = Name::from_ascii("wide.app.svc.cluster.local.").unwrap();
        query.add_query(Query::query(name, RecordType::SRV));
        for (limit, records, addresses) in [(512, 43, 1), (65_535, 5462, 6)] {
            let Decision::Answer(response) = decide(&config(), &index, &query, limit) else {
                panic!()
            };
            assert_eq!(
                (response.answers.len(), response.additionals.len()),
                (records, addresses)
            );
            let read = Message::from_vec(&fit(response, limit).unwrap()).unwrap();
            assert!(read.metadata.truncation && !read.answers.is_empty());
        }
    }
}
