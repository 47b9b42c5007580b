// A consumer of a pull queue: receives messages, works on each, and acknowledges it.
//
//     TIDEHOOK_URL=http://localhost:8888 QUEUE=jobs QUEUE_KEY=… npx tsx consumer.mts
//
// It ends after `MESSAGES` messages if that is set. Needs Node 18 or later.

interface Message {
  id: string;
  event_type: string;
  payload: unknown;
  attempt: number;
  receipt: string;
}

const base = process.env.TIDEHOOK_URL ?? "http://localhost:8888";
const queue = process.env.QUEUE ?? "jobs";
const limit = Number(process.env.MESSAGES ?? 0);

async function call<T>(method: string, path: string, body?: object): Promise<T> {
  const response = await fetch(`${base}/api/queues/${queue}${path}`, {
    method,
    headers: {
      Authorization: `Bearer ${process.env.QUEUE_KEY ?? ""}`,
      "Content-Type": "application/json",
    },
    body: body && JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}

/** Replace this. An exception gives the message back. */
async function work(message: Message): Promise<void> {
  if (JSON.stringify(message.payload) === '{"fail":true}') {
    throw new Error("the payload asks for a failure");
  }
  console.log(message.event_type, JSON.stringify(message.payload));
}

for (let seen = 0; !limit || seen < limit; ) {
  let messages: Message[];
  try {
    ({ messages } = await call<{ messages: Message[] }>("GET", "/messages?wait=20s&batch=10"));
  } catch (why) {
    // The server restarts, or is busy: what was published meanwhile waits.
    console.error(String(why));
    await new Promise((resolve) => setTimeout(resolve, 1000));
    continue;
  }
  for (const message of messages) {
    seen += 1;
    const receipts = [message.receipt];
    try {
      await work(message);
      await call("POST", "/ack", { receipts });
    } catch (why) {
      await call("POST", "/nack", { receipts, delay: "1s", reason: String(why) });
    }
  }
}
