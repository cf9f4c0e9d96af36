// What is published, how large it is, and that the types name what there is.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as client from "../fantail.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(new URL("../../../tests/browsers/package.json", import.meta.url));
const BYTES_MAX = 6 * 1024;

test("minified and compressed it has at most 6 KB", () => {
  const { outputFiles: [file] } = require("esbuild").buildSync({
    entryPoints: [join(ROOT, "fantail.js")], bundle: true, minify: true, format: "esm", target: "es2022", write: false,
  });
  const bytes = gzipSync(file.contents, { level: 9 }).length;
  console.log(`${bytes} bytes of ${BYTES_MAX}`);
  assert.ok(bytes <= BYTES_MAX, `${bytes} bytes`);
});

test("the package has the module, its types and nothing else", () => {
  const [packed] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--offline"], { cwd: ROOT, stdio: ["ignore", "pipe", "ignore"] }));
  const files = packed.files.map(({ path }) => path).sort();
  assert.deepEqual(files, ["LICENSE", "README.md", "fallback.js", "fantail.d.ts", "fantail.js", "link.js", "package.json"]);
  const about = JSON.parse(readFileSync(join(ROOT, "package.json")));
  assert.equal(about.dependencies, undefined);
  const { version } = /^\[workspace\.package\]\nversion = "(?<version>[^"]+)"$/m.exec(readFileSync(join(ROOT, "../../Cargo.toml"))).groups;
  assert.equal(about.version, version);
});

test("the types name what the module has", () => {
  const types = readFileSync(join(ROOT, "fantail.d.ts"), "utf8");
  const exported = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name).sort();
  assert.deepEqual(exported, Object.keys(client).sort());
  const declared = /export class Fantail \{\n(.*?)\n\}/s.exec(types)[1];
  const members = [...declared.matchAll(/^ {2}(?:readonly )?(\w+)/gm)].map(([, name]) => name).sort();
  assert.deepEqual(members, Object.getOwnPropertyNames(client.Fantail.prototype).sort());
});
