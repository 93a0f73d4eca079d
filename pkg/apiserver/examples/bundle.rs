//! Prints a bundle of manifests (tests/bundles/generate.rs): `bundle SEED BYTES [definitions|rest]`.

#[path = "../../../tests/bundles/generate.rs"]
mod generate;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse().ok());
    let (Some(seed), Some(bytes)) = (number(0), number(1)) else {
        eprintln!("bundle SEED BYTES [definitions|rest]");
        std::process::exit(2);
    };
    let part = arguments.get(2).map(String::as_str);
    for object in generate::bundle(seed, bytes as usize) {
        let is_definition = object["kind"] == "CustomResourceDefinition";
        if part.is_none_or(|part| (part == "definitions") == is_definition) {
            println!("---\n{object}");
        }
    }
}
