//! A manifest: arbitrary YAML that a user applies.

#![no_main]

use beemesh_quadlet::manifest::{parse, parse_under, policy::Rules, reread};

libfuzzer_sys::fuzz_target!(|yaml: &[u8]| {
    let strictly = parse(yaml, true);
    let Ok(manifest) = parse(yaml, false) else {
        assert!(
            strictly.is_err(),
            "what is refused is refused strictly, too"
        );
        return;
    };
    if let Ok(allowed) = parse_under(yaml, false, Some(&Rules::default())) {
        assert_eq!(allowed.objects, manifest.objects, "a policy only refuses");
    }
    if let Ok(strict) = strictly {
        assert_eq!(strict, manifest, "what is accepted strictly is all done");
    }
    assert_eq!(manifest.places.len(), manifest.objects.len());
    // A file of nothing but objects without effect is not kept, so no backup has it.
    if manifest.objects.is_empty() {
        return;
    }
    // In the way in which a restore reads the objects of a backup.
    let bodies: Vec<&[u8]> = manifest
        .objects
        .iter()
        .map(|object| &object.body[..])
        .collect();
    let again = reread(&bodies, None);
    assert_eq!(
        again.map(|again| again.objects),
        Ok(manifest.objects.clone())
    );
});
