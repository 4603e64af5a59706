// Ollama's own client for Node.js against a cluster: node ollama.mjs ADDRESS_URL
//
// The simulated engine serves the model `sim`.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const messages = [{ role: "user", content: "How is the weather in 'Zürich'?" }];
const options = { num_predict: 3 };

const tests = {
  async text() {
    const answer = await client.chat({ model: "sim", messages, options });
    assert.deepEqual([answer.message.content, answer.eval_count], ["t0 t1 t2 ", 3]);
    const said = [];
    for await (const part of await client.chat({ model: "sim:latest", messages, options, stream: true })) {
      said.push(part.message.content);
    }
    assert.equal(said.join(""), "t0 t1 t2 ");
    const generated = await client.generate({ model: "sim", prompt: "hi", options });
    assert.equal(generated.response, "t0 t1 t2 ");
  },

  async tools() {
    const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
    const tools = [{ type: "function", function: { name: "weather", description: "Tells it.", parameters } }];
    const answer = await client.chat({ model: "sim", messages, tools, options: { num_predict: 99 } });
    const [call] = answer.message.tool_calls;
    assert.deepEqual([call.function.name, call.function.arguments], ["weather", { city: "Zürich" }]);
    const after = [...messages, answer.message, { role: "tool", content: "sunny", tool_name: "weather" }];
    assert.match((await client.chat({ model: "sim", messages: after, tools, options })).message.content, /^t0 /);
  },

  async embeddings_and_models() {
    assert.equal((await client.embed({ model: "sim", input: ["a", "b"] })).embeddings.length, 2);
    const names = (await client.list()).models.map((model) => model.name);
    assert.ok(names.includes("sim:latest"), names);
    assert.ok((await client.show({ model: "sim" })).capabilities.includes("completion"));
    assert.ok((await client.ps()).models.length > 0);
    assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
  },

  async errors() {
    const error = await client.chat({ model: "nobody", messages }).then(assert.fail, (e) => e);
    assert.equal(error.status_code, 404);
    assert.match(error.error, /nobody/);
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test();
  console.log("passed:", name);
}
