// Signs standard input as GitHub's own library does. Arguments: where packages are installed, the secret.
import { pathToFileURL } from "node:url";
const [folder, secret] = process.argv.slice(2);
const { sign } = await import(pathToFileURL(`${folder}/node_modules/@octokit/webhooks-methods/dist-node/index.js`));
let body = "";
for await (const chunk of process.stdin) body += chunk;
process.stdout.write(await sign(secret, body));
