//! Short hashes of pod templates, in the alphabet that names may use.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// No vowels and no look-alikes, as upstream's generated names have it.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// 32 bit FNV-1a.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// 32 bit FNV-1: multiplied first.
pub fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte)
    })
}

/// Maps each character into the alphabet.
pub fn safe_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]))
        .collect()
}

/// The hash that tells the ReplicaSets of a Deployment apart.
pub fn pod_template(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // A template always serialises: it came from JSON.
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if let Some(count) = collisions {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    safe_encode(&fnv32a(&bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_fnv_and_changes_with_the_collision_count() {
        assert_eq!(fnv32a(b""), 0x811c_9dc5);
        assert_eq!(fnv32a(b"a"), 0xe40c_292c);
        assert_eq!((fnv32(b""), fnv32(b"a")), (0x811c_9dc5, 0x050c_5d7e));
        let template = PodTemplateSpec::default();
        assert_ne!(pod_template(&template, None), pod_template(&template, Some(1)));
        assert!(pod_template(&template, None).bytes().all(|b| ALPHABET.contains(&b)));
    }
}
