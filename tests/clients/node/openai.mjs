// OpenAI's own client for Node.js against a cluster: node openai.mjs BASE_URL
//
// The simulated engine serves the model `sim`.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello?" }];
const City = z.object({ name: z.string(), inhabitants: z.number().int() });
const weather = {
  name: "weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const tool = { type: "function", function: weather };
const words = (count) => Array.from({ length: count }, (_, number) => `t${number} `).join("");

const tests = {
  async chat() {
    const answer = await client.chat.completions.create({ model: "sim", messages, max_completion_tokens: 3, n: 2 });
    assert.deepEqual(answer.choices.map((choice) => choice.message.content), [words(3), words(3)]);
    assert.equal(answer.usage.completion_tokens, 6);
    const options = { model: "sim", messages, max_tokens: 3, stream: true, stream_options: { include_usage: true } };
    let [text, usage] = ["", null];
    for await (const chunk of await client.chat.completions.create(options)) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, words(3));
    assert.equal(usage.completion_tokens, 3);
  },

  async streamHelper() {
    const deltas = [];
    const stream = client.chat.completions.stream({ model: "sim", messages, max_tokens: 4 });
    stream.on("content", (delta) => deltas.push(delta));
    const final = await stream.finalChatCompletion();
    assert.equal(deltas.join(""), words(4));
    assert.equal(final.choices[0].finish_reason, "length");
  },

  async tools() {
    const asked = [];
    const run = async ({ city }) => asked.push(city) && "sunny";
    const runnable = { type: "function", function: { ...weather, parse: JSON.parse, function: run } };
    const ask = [{ role: "user", content: "How is the weather in 'Zürich'?" }];
    const runner = client.chat.completions.runTools({ model: "sim", messages: ask, tools: [runnable], stream: true });
    assert.match(await runner.finalContent(), /^t0 t1 /);
    assert.deepEqual(asked, ["Zürich"]);
  },

  async structured() {
    const format = zodResponseFormat(City, "city");
    const ask = [{ role: "user", content: "A city named 'Bern' of 134591?" }];
    const answer = await client.chat.completions.parse({ model: "sim", messages: ask, response_format: format });
    assert.deepEqual(answer.choices[0].message.parsed, { name: "Bern", inhabitants: 134591 });
  },

  async others() {
    const text = await client.completions.create({ model: "sim", prompt: "a", max_tokens: 2 });
    assert.equal(text.choices[0].text, words(2));
    // The client asks for base64 by itself and decodes it.
    const vectors = await client.embeddings.create({ model: "sim", input: ["a", "b"], dimensions: 5 });
    assert.deepEqual(vectors.data.map((one) => one.embedding.length), [5, 5]);
    const floats = await client.embeddings.create({ model: "sim", input: "a", dimensions: 5, encoding_format: "float" });
    floats.data[0].embedding.forEach((number, at) => assert.ok(Math.abs(number - vectors.data[0].embedding[at]) < 1e-6));
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    assert.ok(models.includes("sim"), models);
  },

  async responses() {
    const answer = await client.responses.create({ model: "sim", input: "hi", max_output_tokens: 3 });
    assert.equal(answer.output_text, words(3));
    const names = [];
    const stream = client.responses.stream({ model: "sim", input: "hi", max_output_tokens: 3 });
    for await (const event of stream) names.push(event.type);
    assert.deepEqual([names[0], names.at(-1)], ["response.created", "response.incomplete"]);
    assert.equal((await stream.finalResponse()).output_text, words(3));
    const parsed = await client.responses.parse({ model: "sim", input: "hi", text: { format: zodTextFormat(City, "city") } });
    assert.deepEqual(parsed.output_parsed, { name: "t0", inhabitants: 0 });
    const called = await client.responses.create({ model: "sim", input: "hi", tools: [{ type: "function", ...weather }] });
    assert.deepEqual([called.output[0].type, JSON.parse(called.output[0].arguments)], ["function_call", { city: "t0" }]);
  },

  async errors() {
    const fails = (code) => ({ model: "sim", messages, sim: { error_after: 0, error_code: code, always: true } });
    for (const [kind, status, code, body] of [
      [OpenAI.NotFoundError, 404, "model_not_found", { model: "nobody", messages }],
      [OpenAI.BadRequestError, 400, "missing_required_parameter", { model: "sim" }],
      [OpenAI.RateLimitError, 429, "rate_limit_exceeded", fails("rate_limited")],
      [OpenAI.InternalServerError, 500, "engine_error", fails("internal")],
    ]) {
      const error = await client.chat.completions.create(body).then(assert.fail, (error) => error);
      assert.ok(error instanceof kind, error);
      assert.deepEqual([error.status, error.code], [status, code]);
      assert.ok(error.requestID);
    }
    const sim = { error_after: 2, error_code: "internal", always: true };
    let text = "";
    const broken = async () => {
      for await (const chunk of await client.chat.completions.create({ model: "sim", messages, sim, stream: true })) {
        text += chunk.choices[0]?.delta.content ?? "";
      }
    };
    await assert.rejects(broken, OpenAI.APIError);
    assert.equal(text, words(2));
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test();
  console.log("passed:", name);
}
