//! mk8s-dns.
