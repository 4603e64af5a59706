// Vercel's AI SDK on a cluster: node ai_sdk.mjs BASE_URL
//
// Its provider for compatible servers (chat, completions, embeddings) and OpenAI's own (responses). The simulated engine
// serves the model `sim`.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = process.argv[2];
const compatible = createOpenAICompatible({
  name: "tokenbus",
  baseURL,
  apiKey: "unused",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const responses = createOpenAI({ baseURL, apiKey: "unused" }).responses("sim");
const once = { maxRetries: 0 };
const City = z.object({ name: z.string(), inhabitants: z.number().int() });
const bern = { name: "Bern", inhabitants: 134591 };
const words = (count) => Array.from({ length: count }, (_, number) => `t${number} `).join("");

function weather(asked) {
  const execute = async ({ city }) => asked.push(city) && "sunny";
  return tool({ description: "Tells the weather.", inputSchema: z.object({ city: z.string() }), execute });
}

const tests = {
  async text(model) {
    const answer = await generateText({ model, prompt: "Hello?", maxOutputTokens: 3, ...once });
    assert.deepEqual([answer.text, answer.finishReason, answer.usage.outputTokens], [words(3), "length", 3]);
    const stream = streamText({ model, prompt: "Hello?", maxOutputTokens: 3, ...once });
    const deltas = [];
    for await (const delta of stream.textStream) deltas.push(delta);
    assert.equal(deltas.join(""), words(3));
    assert.equal((await stream.usage).outputTokens, 3);
  },

  async tools(model) {
    for (const ask of [generateText, streamText]) {
      const asked = [];
      const prompt = "How is the weather in 'Zürich'?";
      const answer = await ask({ model, prompt, tools: { weather: weather(asked) }, stopWhen: stepCountIs(3), ...once });
      assert.match(await answer.text, /^t0 t1 /);
      assert.deepEqual(asked, ["Zürich"]);
      assert.equal((await answer.steps).length, 2);
    }
  },

  async object(model) {
    const ask = { model, schema: City, prompt: "A city named 'Bern' of 134591?", ...once };
    assert.deepEqual((await generateObject(ask)).object, bern);
    const stream = streamObject(ask);
    let last = null;
    for await (const part of stream.partialObjectStream) last = part;
    assert.deepEqual(last, bern);
  },

  async errors(model) {
    const noSuch = model === responses ? createOpenAI({ baseURL, apiKey: "unused" }).responses("nobody") : compatible("nobody");
    const error = await generateText({ model: noSuch, prompt: "hi", ...once }).then(assert.fail, (error) => error);
    assert.ok(APICallError.isInstance(error), error);
    assert.equal(error.statusCode, 404);
    assert.match(error.message, /The model "nobody" does not exist/);
  },
};

const only = {
  async reasoning() {
    const ask = { model: compatible("sim"), prompt: "hi", maxOutputTokens: 2, ...once };
    const answer = await generateText({ ...ask, providerOptions: { tokenbus: { reasoningEffort: "low" } } });
    assert.deepEqual([answer.reasoningText, answer.text], ["r0 r1 r2 ", words(2)]);
  },

  // With OpenAI's provider, as it comes in a summary and goes back in what is encrypted.
  async reasoningOfResponses() {
    const openai = { store: false, reasoningEffort: "low", reasoningSummary: "auto", forceReasoning: true };
    const providerOptions = { openai: { ...openai, include: ["reasoning.encrypted_content"] } };
    const ask = { model: responses, prompt: "hi", maxOutputTokens: 2, providerOptions, ...once };
    const answer = await generateText(ask);
    assert.deepEqual([answer.reasoningText, answer.text], ["r0 r1 r2 ", words(2)]);
    const stream = streamText(ask);
    assert.equal(await stream.reasoningText, "r0 r1 r2 ");
    const messages = [{ role: "user", content: "hi" }, ...answer.response.messages, { role: "user", content: "more" }];
    const next = await generateText({ ...ask, prompt: undefined, messages });
    const sent = next.request.body.input.find((item) => item.type === "reasoning");
    assert.match(sent.encrypted_content, /^tb[12]\./);
    assert.equal(next.text, words(2));
  },

  async images() {
    const image = new Uint8Array([0x89, 0x50, 0x4e, 0x47]);
    const content = [{ type: "text", text: "What is it?" }, { type: "image", image, mediaType: "image/png" }];
    const ask = { model: compatible("sim"), messages: [{ role: "user", content }], maxOutputTokens: 1, ...once };
    assert.equal((await generateText(ask)).text, "t0 ");
  },

  async completionsAndEmbeddings() {
    const model = compatible.completionModel("sim");
    assert.equal((await generateText({ model, prompt: "a", maxOutputTokens: 2, ...once })).text, words(2));
    const embedder = compatible.textEmbeddingModel("sim");
    const { embeddings } = await embedMany({ model: embedder, values: ["a", "b", "a"], ...once });
    assert.deepEqual(embeddings[0], embeddings[2]);
    assert.notDeepEqual(embeddings[0], embeddings[1]);
  },
};

for (const [kind, model] of [["chat", compatible("sim")], ["responses", responses]]) {
  for (const [name, test] of Object.entries(tests)) {
    await test(model);
    console.log("passed:", kind, name);
  }
}
for (const [name, test] of Object.entries(only)) {
  await test();
  console.log("passed:", name);
}
