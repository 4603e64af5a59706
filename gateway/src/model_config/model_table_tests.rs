//! Tests of what aliases stand for.

use super::*;
use crate::model_config::aliases::{MAX_TARGETS, Target};

fn table(text: &str) -> ModelTable {
    ModelTable::parse(text, false).unwrap()
}

fn targets(table: &ModelTable, name: &str) -> Vec<String> {
    let route = table.route(name).unwrap();
    route.targets.iter().map(|target| target.model.clone()).collect()
}

fn filled(table: &ModelTable, name: &str, target: usize) -> String {
    let route = table.route(name).unwrap();
    let target = &route.targets[target];
    let filled = target.defaults.fill(b"{}", &target.model).unwrap();
    String::from_utf8(filled.to_vec()).unwrap()
}

#[test]
fn an_alias_stands_for_models_in_their_order() {
    let table = table(
        r#"
        [models."gpt-4o-mini"]
        targets = ["llama", "qwen2.5:7b"]
        [models."gpt-4o-mini".defaults]
        max_tokens = 100
        [models.llama.defaults]
        max_tokens = 50
        temperature = 0.25
        chat_template_kwargs = { enable_thinking = false }
        stop = ["x", "y"]
        "#,
    );
    assert_eq!(targets(&table, "gpt-4o-mini"), ["llama", "qwen2.5:7b"]);
    assert_eq!(
        filled(&table, "gpt-4o-mini", 0),
        r#"{"model":"llama","max_tokens":100,"chat_template_kwargs":{"enable_thinking":false},"stop":["x","y"],"temperature":0.25}"#
    );
    assert_eq!(
        filled(&table, "gpt-4o-mini", 1),
        r#"{"model":"qwen2.5:7b","max_tokens":100}"#
    );
    assert_eq!(targets(&table, "llama"), ["llama"]);
    assert!(table.is_alias("gpt-4o-mini") && !table.is_alias("llama") && table.route("other").is_none());
    assert_eq!(table.aliases().count(), 1);
}

#[test]
fn aliases_of_aliases_are_taken_apart_and_each_model_is_tried_once() {
    let table = table(
        r#"
        [models.best]
        targets = ["large", "small", "b"]
        [models.large]
        targets = ["a", "b"]
        defaults = { top_k = 1 }
        [models.small]
        targets = ["small", "a"]
        "#,
    );
    assert_eq!(targets(&table, "best"), ["a", "b", "small"]);
    assert_eq!(filled(&table, "best", 0), r#"{"model":"a","top_k":1}"#);
    // Among its own targets, a name means the model itself.
    assert_eq!(targets(&table, "small"), ["small", "a"]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let many: Vec<String> = (0..=MAX_TARGETS).map(|at| format!("\"m{at}\"")).collect();
    let many = format!("[models.many]\ntargets = [{}]", many.join(","));
    for (text, blamed) in [
        (
            "[models.a]\ntargets = [\"b\"]\n[models.b]\ntargets = [\"a\"]",
            "a → b → a",
        ),
        ("[models.a]\ntarget = \"b\"", "target"),
        ("[models.a]\ntargets = \"b\"", "line 2"),
        ("[model.a]\ntargets = [\"b\"]", "model"),
        ("[models.a]\ntargets = [\"\"]", "name"),
        ("[models.\"\"]\n", "name"),
        ("[models.a.defaults]\nmax_tokens = \"x\"", "max_tokens"),
        ("[models.a.defaults]\ntemperature = nan", "temperature"),
        ("[models.a.defaults]\nx = 1979-05-27", "x has no value"),
        ("[models.a.defaults]\nstream = true", "stream"),
        ("[models.a.defaults]\nn = 2", "n cannot"),
        (
            "[models.a.defaults]\nresponse_format = { type = \"json_object\" }",
            "formats",
        ),
        ("[models.a.defaults]\ntools = [{ type = \"function\" }]", "tools"),
        ("[models.a.defaults]\nguided_regex = \"a\"", "grammars"),
        (
            "[models.a.defaults]\nmax_tokens = 1\nmax_completion_tokens = 2",
            "are one",
        ),
        (&many, "32"),
        ("[models", "line 1"),
    ] {
        let error = ModelTable::parse(text, false).unwrap_err().to_string();
        assert!(error.contains(blamed), "{text}: {error}");
    }
}

#[test]
fn in_a_shared_file_other_tables_are_passed_over() {
    let text = "namespace = \"tb\"\n[gateway]\nlisten = \"x\"\n[models.a]\ntargets = [\"b\"]\n";
    assert!(ModelTable::parse(text, false).is_err());
    assert_eq!(targets(&ModelTable::parse(text, true).unwrap(), "a"), ["b"]);
    assert_eq!(ModelTable::parse("", true).unwrap().aliases().count(), 0);
}

#[test]
fn an_alias_is_listed_with_what_is_known_of_its_first_live_model() {
    let model = |name: &str, live, created| ListedModel {
        name: name.to_owned(),
        created,
        context_length: Some(created),
        capabilities: Capabilities::default(),
        live,
    };
    let models = [model("a", false, 1), model("b", true, 2), model("c", true, 3)];
    let listed = |names: &[&str]| {
        let target = |name: &&str| Target {
            model: (*name).to_owned(),
            defaults: Defaults::default(),
            require: Labels::default(),
        };
        Route {
            targets: names.iter().map(target).collect(),
        }
        .listed("alias", &models)
    };
    assert_eq!(
        listed(&["x", "a", "b", "c"]),
        ListedModel {
            name: "alias".into(),
            ..models[1].clone()
        }
    );
    assert_eq!(
        listed(&["x", "a"]),
        ListedModel {
            name: "alias".into(),
            ..models[0].clone()
        }
    );
    assert!(!listed(&["x"]).live);
}

fn labels(texts: &[&str]) -> Labels {
    Labels::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}

#[test]
fn labels_are_required_by_every_name_on_the_way() {
    let table = table(
        r#"
        [models.private]
        targets = ["private", "large"]
        require = ["region=eu"]
        [models.large]
        require = ["gpu=h100", "region=eu"]
        "#,
    );
    let required = |name: &str| -> Vec<Labels> {
        let route = table.route(name).unwrap();
        route.targets.iter().map(|target| target.require.clone()).collect()
    };
    let both = labels(&["gpu=h100", "region=eu"]);
    assert_eq!(required("private"), [labels(&["region=eu"]), both.clone()]);
    assert_eq!(required("large"), [both]);
}

#[test]
fn an_order_of_workers_is_read_and_belongs_to_models_with_workers() {
    let all = table(
        r#"
        [models.m]
        tiers = ["site=own", 1, "provider=*"]
        prefer = ["gpu=h100"]
        avoid = ["spot=*"]
        tier-wait = "1500ms"
        [models.own]
        targets = ["m", "own"]
        avoid = ["spot=*"]
        [models.plain]
        price = { prompt = 1 }
        "#,
    )
    .policies();
    let policy = &all["m"];
    assert_eq!((policy.tiers.len(), &policy.tiers[1]), (3, &Tier::Own(1)));
    assert_eq!(policy.tier_wait, Some(Duration::from_millis(1500)));
    assert_eq!(policy.standing(&labels(&["provider=x"]), 0).tier, 2);
    assert!(all.contains_key("own") && !all.contains_key("plain"));
    for wrong in [
        "targets = ['b']\ntiers = ['a=b']",
        "targets = ['b']\ntier-wait = '1s'",
        "tiers = ['own']",
        "tiers = [-1]",
        "require = ['a=*']",
        "prefer = 'a=b'",
        "avoid = ['a=b=c']",
        "tier-wait = 5",
        "tier-wait = '5 parsecs'",
        "prices = [{ label = 'a=b' }]",
        "prices = [{ label = 'a', price = { prompt = 1 } }]",
    ] {
        ModelTable::parse(&format!("[models.a]\n{wrong}"), false).unwrap_err();
    }
    let many: Vec<String> = (0..=MAX_LABELS).map(|n| format!("'n={n}'")).collect();
    for member in ["tiers", "prefer", "avoid", "require"] {
        let text = format!("[models.a]\n{member} = [{}]", many.join(","));
        ModelTable::parse(&text, false).unwrap_err();
    }
}

#[test]
fn the_first_price_that_speaks_of_the_worker_counts() {
    let table = table(
        r#"
        [models.m]
        price = { prompt = 1 }
        prices = [
            { label = "provider=a", price = { prompt = 2 } },
            { label = "provider=*", price = { prompt = 3 } },
        ]
        [models.only]
        prices = [{ label = "provider=*", price = { prompt = 4 } }]
        "#,
    );
    let tokens = crate::metrics::Tokens {
        prompt: 1_000_000,
        completion: 0,
        cached: 0,
    };
    let price = |name: &str, texts: &[&str]| {
        let price = table.price(name, &labels(texts));
        price.map(|price| price.of(tokens).cost / 1_000_000_000)
    };
    assert_eq!(price("m", &["provider=a"]), Some(2));
    assert_eq!(price("m", &["provider=b", "x=y"]), Some(3));
    assert_eq!(price("m", &[]), Some(1));
    assert_eq!((price("only", &["provider=b"]), price("only", &[])), (Some(4), None));
}
