// Anthropic's own client for Node.js against a cluster: node anthropic.mjs ADDRESS_URL
//
// The simulated engine serves the model `sim`.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "How is the weather in 'Zürich'?" }];
const tools = [
  { name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } },
];

const tests = {
  async text() {
    const ask = { model: "sim", max_tokens: 3, messages };
    const answer = await client.messages.create(ask);
    assert.deepEqual([answer.content[0].text, answer.stop_reason], ["t0 t1 t2 ", "max_tokens"]);
    const deltas = [];
    const final = await client.messages.stream(ask).on("text", (delta) => deltas.push(delta)).finalMessage();
    assert.equal(deltas.join(""), final.content[0].text);
    assert.deepEqual(final.usage.output_tokens, 3);
    assert.equal((await client.messages.countTokens({ model: "sim", messages })).input_tokens, 6);
  },

  async tools() {
    const ask = { model: "sim", max_tokens: 99, messages, tools };
    const final = await client.messages.stream(ask).finalMessage();
    assert.deepEqual([final.stop_reason, final.content[0].input], ["tool_use", { city: "Zürich" }]);
    const result = { type: "tool_result", tool_use_id: final.content[0].id, content: "sunny" };
    const after = [...messages, { role: "assistant", content: final.content }, { role: "user", content: [result] }];
    assert.match((await client.messages.create({ ...ask, messages: after })).content[0].text, /^t0 /);
  },

  async errors() {
    const error = await client.messages.create({ model: "nobody", max_tokens: 1, messages }).then(assert.fail, (e) => e);
    assert.ok(error instanceof Anthropic.NotFoundError, error);
    assert.equal(error.error.error.type, "not_found_error");
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test();
  console.log("passed:", name);
}
