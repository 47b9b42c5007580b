// The libraries of Node behind one door: reads {"name", "arguments": [[…], …]} from standard input, a line each, and
// answers {"results": […]} or {"error"}. Argument: the folder under which packages are installed.
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const require = createRequire(join(folder, "package.json"));

const octokit = await import(pathToFileURL(join(folder, "node_modules/@octokit/webhooks-methods/dist-node/index.js")));
const { Webhook: Svix } = require("svix");
const { Webhook: Standard } = require("standardwebhooks");
const Stripe = require("stripe");
const twilio = require("twilio");
const { isValidSlackRequest, HTTPModuleFunctions } = require("@slack/bolt");
const { verifyKey } = require("discord-interactions");
const { CloudEvent, HTTP } = require("cloudevents");

/** Whether something goes through without throwing. */
function passes(attempt) {
  try {
    attempt();
    return true;
  } catch {
    return false;
  }
}

/** The event that a message of HTTP carries, as text in a fixed order of attributes. */
function readBack(headers, body) {
  const events = HTTP.toEvent({ headers, body });
  const plain = (event) => Object.fromEntries(Object.entries(event.toJSON()).sort(([a], [b]) => (a < b ? -1 : 1)));
  return JSON.stringify(Array.isArray(events) ? events.map(plain) : plain(events));
}

/** A CloudEvent in one of the modes; `base64` is data that is bytes. */
function cloudEvent(mode, { base64, ...attributes }) {
  const event = new CloudEvent(base64 === undefined ? attributes : { ...attributes, data: Uint8Array.from(Buffer.from(base64, "base64")) });
  const { headers, body } = HTTP[mode](event);
  const bytes = body === undefined ? Buffer.alloc(0) : Buffer.from(body);
  return { headers, base64: bytes.toString("base64") };
}

const functions = {
  // Every example payload as [where it is from, event, text].
  "github.examples": () => {
    const root = dirname(require.resolve("@octokit/webhooks-examples/package.json"));
    const versions = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
    return versions.sort().flatMap((version) =>
      require(join(root, version, "index.json")).flatMap(({ name, examples }) =>
        examples.map((example, number) => [`${version}/${name}/${number}`, name, JSON.stringify(example)]),
      ),
    );
  },
  "github.sign": (secret, body) => octokit.sign(secret, body),
  "github.verify": (secret, body, signature) => octokit.verify(secret, body, signature),
  "github.form": (text) => new URLSearchParams({ payload: text }).toString(),

  // Times are seconds since 1970.
  "svix.sign": (secret, id, time, body) => new Svix(secret).sign(id, new Date(time * 1000), body),
  "svix.verifies": (secret, headers, body) => passes(() => new Svix(secret).verify(body, headers)),
  "standardwebhooks.sign": (secret, id, time, body) => new Standard(secret).sign(id, new Date(time * 1000), body),
  "standardwebhooks.verifies": (secret, headers, body) =>
    passes(() => new Standard(secret).verify(body, headers, { jsonParse: false })),

  "stripe.sign": (secret, timestamp, payload) => Stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp }),
  "stripe.verifies": (secret, header, payload) => passes(() => Stripe.webhooks.constructEvent(payload, header, secret)),

  "twilio.sign": (token, url, parameters, algorithm) =>
    twilio.getExpectedTwilioSignature(token, url, parameters, algorithm ?? undefined),
  "twilio.bodyHash": (body) => twilio.getExpectedBodyHash(body),
  "twilio.verifies": (token, signature, url, parameters, algorithm) =>
    twilio.validateRequest(token, signature, url, parameters, algorithm ?? undefined),
  "twilio.verifiesBody": (token, signature, url, body) => twilio.validateRequestWithBody(token, signature, url, body),

  "slack.verifies": (signingSecret, headers, body) =>
    isValidSlackRequest({
      signingSecret,
      body,
      headers: { ...headers, "x-slack-request-timestamp": Number(headers["x-slack-request-timestamp"]) },
    }),
  // What the receiver of Bolt makes of a body.
  "slack.parse": (contentType, body) =>
    HTTPModuleFunctions.parseHTTPRequestBody({ headers: { "content-type": contentType }, rawBody: Buffer.from(body) }),

  "discord.verifies": (publicKey, signature, timestamp, body) => verifyKey(body, signature, timestamp, publicKey),

  "cloudevents.write": cloudEvent,
  "cloudevents.read": readBack,
};

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let answer;
  try {
    const { name, arguments: list } = JSON.parse(line);
    answer = { results: await Promise.all(list.map((one) => functions[name](...one))) };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
