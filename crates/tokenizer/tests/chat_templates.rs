//! Chat templates in the style of the popular families, against Python's Jinja2 and by hand.

use baton_tokenizer::{ChatPrompt, ChatTemplate, TemplateError};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

fn template(source: &str) -> ChatTemplate {
    let special = json!({"bos_token": "<s>", "eos_token": "</s>"});
    ChatTemplate::new(source, special.as_object().unwrap().clone()).unwrap()
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A chat without tools and extras.
fn render(template: &ChatTemplate, messages: Value) -> Result<String, TemplateError> {
    render_with(template, messages, |prompt| prompt)
}

fn render_with(
    template: &ChatTemplate,
    messages: Value,
    change: impl for<'a> Fn(ChatPrompt<'a>) -> ChatPrompt<'a>,
) -> Result<String, TemplateError> {
    template.render(&change(ChatPrompt {
        messages: messages.as_array().unwrap(),
        tools: None,
        add_generation_prompt: false,
        continue_final_message: false,
        extra: &Map::new(),
    }))
}

fn rejected(message: &str) -> Result<String, TemplateError> {
    Err(TemplateError::Rejected(message.into()))
}

const CHATML: &str =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}";

#[test]
fn prompts_equal_those_of_jinja2() {
    let cases: Value = serde_json::from_str(&file("cases.json")).unwrap();
    let expected: Value = serde_json::from_str(&file("expected.json")).unwrap();
    let (cases, expected) = (cases.as_array().unwrap(), expected.as_array().unwrap());
    assert!(cases.len() == expected.len() && !cases.is_empty(), "run tests/templates/reference.py");
    for (case, expected) in cases.iter().zip(expected) {
        let template = template(&file(&format!("{}.jinja", case["template"].as_str().unwrap())));
        let got = template.render(&ChatPrompt {
            messages: case["messages"].as_array().unwrap(),
            tools: case.get("tools"),
            add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            continue_final_message: false,
            extra: case.get("extra").and_then(Value::as_object).unwrap_or(&Map::new()),
        });
        let expected = match expected["prompt"].as_str() {
            Some(prompt) => Ok(prompt.to_owned()),
            None => rejected(expected["rejected"].as_str().unwrap()),
        };
        assert_eq!(got, expected, "{}: {}", case["template"], case["name"]);
    }
}

#[test]
fn contents_take_the_form_that_the_template_handles() {
    let parts =
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    let text = json!([{"role": "user", "content": "a"}]);
    let texts_only = template(CHATML);
    assert_eq!(render(&texts_only, parts.clone()).unwrap(), "<|im_start|>user\na\nb<|im_end|>\n");

    let parts_only = template(&file("parts.jinja"));
    assert_eq!(render(&parts_only, text.clone()).unwrap(), "<|user|>\na\n");
    assert_eq!(render(&parts_only, parts.clone()).unwrap(), "<|user|>\na\nb\n");

    let both = template(
        "{% for m in messages %}{% if m.content is string %}T{{ m.content }}{% else %}{% for p in m.content %}P{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
    );
    assert_eq!(render(&both, text).unwrap(), "Ta");
    assert_eq!(render(&both, parts.clone()).unwrap(), "PaPb");

    // One that prints whatever it is given does not handle lists.
    assert_eq!(render(&template("{{ messages[0].content }}"), parts.clone()).unwrap(), "a\nb");
    assert_eq!(render(&template("{{ messages[0].content | tojson }}"), parts).unwrap(), r#""a\nb""#);

    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let problem = "messages[0].content has a part of type `image_url`, but this model takes only text";
    assert_eq!(render(&texts_only, image), rejected(problem));
}

#[test]
fn a_missing_content_is_empty_and_empty_tool_calls_are_none() {
    let messages = json!([{"role": "assistant", "tool_calls": []}, {"role": "user", "content": null}]);
    let source = "{% for m in messages %}[{{ m.content }}|{{ 'tool_calls' in m }}]{% endfor %}";
    assert_eq!(render(&template(source), messages).unwrap(), "[|False][|False]");
}

#[test]
fn arguments_of_tool_calls_are_objects_where_they_can_be() {
    let source = "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }};{% endfor %}";
    let call = |arguments: &str| json!({"function": {"name": "f", "arguments": arguments}});
    let calls = json!([call("{\"b\":1,\"a\":2}"), call(""), call("{broken"), call("[1]")]);
    let messages = json!([{"role": "assistant", "content": "", "tool_calls": calls}]);
    assert_eq!(render(&template(source), messages).unwrap(), r#"{"b": 1, "a": 2};{};"{broken";"[1]";"#);
}

#[test]
fn the_final_message_can_stay_open() {
    let messages =
        json!([{"role": "user", "content": "Say"}, {"role": "assistant", "content": "Once upon "}]);
    let open = |source: &str, messages: &Value| {
        render_with(&template(source), messages.clone(), |prompt| ChatPrompt {
            continue_final_message: true,
            ..prompt
        })
    };
    let start = "<|im_start|>user\nSay<|im_end|>\n<|im_start|>assistant\nOnce upon";
    assert_eq!(open(CHATML, &messages).unwrap(), format!("{start} "), "the blank at the end stays");
    let trimming = CHATML.replace("m.content", "m.content | trim");
    assert_eq!(open(&trimming, &messages).unwrap(), start, "unless the template trims");
    let parts = json!([{"role": "assistant", "content": [{"type": "text", "text": "Once"}]}]);
    assert_eq!(open(&file("parts.jinja"), &parts).unwrap(), "<|assistant|>\nOnce");

    let problem = "`continue_final_message` needs a final message with text";
    assert_eq!(open(CHATML, &json!([])), rejected(problem));
    let dropped = open("{{ messages[0].content }}", &messages).unwrap_err();
    assert!(
        matches!(dropped, TemplateError::Rejected(ref text) if text.contains("does not show")),
        "{dropped}"
    );
    let both = render_with(&template(CHATML), messages, |prompt| ChatPrompt {
        continue_final_message: true,
        add_generation_prompt: true,
        ..prompt
    });
    assert_eq!(both, rejected("`continue_final_message` and `add_generation_prompt` exclude each other"));
}

#[test]
fn extra_variables_reach_the_template_but_replace_nothing() {
    let template = template(
        "{{ bos_token }}{{ x }}{{ messages | length }}{{ add_generation_prompt }}{{ documents | length }}",
    );
    let extra = json!({"x": "y", "messages": [], "add_generation_prompt": true, "documents": ["d"]});
    let messages = [json!({"role": "user", "content": "a"})];
    let prompt = ChatPrompt {
        messages: &messages,
        tools: None,
        add_generation_prompt: false,
        continue_final_message: false,
        extra: extra.as_object().unwrap(),
    };
    assert_eq!(template.render(&prompt).unwrap(), "<s>y1False1");
}

#[test]
fn the_date_has_the_asked_format() {
    let text = render(&template("{{ strftime_now('%Y-%m-%d') }}"), json!([])).unwrap();
    assert_eq!(text.len(), 10, "{text}");
    assert!(text.as_str() > "2025-01-01", "{text}");
}

#[test]
fn a_broken_template_tells_where() {
    let parse = ChatTemplate::new("a\n{% if %}", Map::new()).err().unwrap();
    assert!(matches!(&parse, TemplateError::Broken(text) if text.contains("(line 2)")), "{parse}");
    let undefined = render(&template("a\n{{ nothing.at.all }}"), json!([])).unwrap_err();
    assert!(matches!(&undefined, TemplateError::Broken(text) if text.contains("(line 2)")), "{undefined}");
    let filter = render(&template("{{ 1 | nonesuch }}"), json!([])).unwrap_err();
    assert!(matches!(&filter, TemplateError::Broken(text) if text.contains("nonesuch")), "{filter}");
}

#[test]
fn an_exception_inside_a_macro_is_still_the_clients() {
    let source = "{% macro fail(why) %}{{ raise_exception('No: ' + why) }}{% endmacro %}{{ fail('x') }}";
    assert_eq!(render(&template(source), json!([])), rejected("No: x"));
}

#[test]
fn a_template_cannot_hang() {
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let started = Instant::now();
    // Compiling renders it too, to learn which contents it handles.
    let problem = render(&template(loops), json!([])).unwrap_err();
    assert!(matches!(&problem, TemplateError::Broken(text) if text.contains("instructions")), "{problem}");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}
