// What is published, how large it is, and that the types name what there is.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as client from "../fantail.js";
import * as presence from "../presence.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(new URL("../../../tests/browsers/package.json", import.meta.url));
// Each by itself: who follows no list does not load what it takes.
const BYTES_MAX = { "fantail.js": 6 * 1024, "presence.js": 1536 };

for (const [name, most] of Object.entries(BYTES_MAX)) {
  test(`minified and compressed ${name} has at most ${most} bytes`, () => {
    const { outputFiles: [file] } = require("esbuild").buildSync({
      entryPoints: [join(ROOT, name)], bundle: true, minify: true, format: "esm", target: "es2022", write: false,
      external: name === "fantail.js" ? [] : ["./fantail.js"],
    });
    const bytes = gzipSync(file.contents, { level: 9 }).length;
    console.log(`${bytes} bytes of ${most}`);
    assert.ok(bytes <= most, `${bytes} bytes`);
  });
}

test("the package has the module, its types and nothing else", () => {
  const [packed] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--offline"], { cwd: ROOT, stdio: ["ignore", "pipe", "ignore"] }));
  const files = packed.files.map(({ path }) => path).sort();
  assert.deepEqual(files, ["LICENSE", "README.md", "fallback.js", "fantail.d.ts", "fantail.js", "link.js", "package.json", "presence.d.ts", "presence.js"]);
  const about = JSON.parse(readFileSync(join(ROOT, "package.json")));
  assert.equal(about.dependencies, undefined);
  const { version } = /^\[workspace\.package\]\nversion = "(?<version>[^"]+)"$/m.exec(readFileSync(join(ROOT, "../../Cargo.toml"))).groups;
  assert.equal(about.version, version);
});

test("an empty project uses what is packed, by import and with its types", (t) => {
  const project = mkdtempSync(join(tmpdir(), "fantail-package-"));
  t.after(() => rmSync(project, { recursive: true }));
  const run = (program, ...given) => execFileSync(program, given, { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const [{ filename }] = JSON.parse(run("npm", "pack", ROOT, "--json", "--offline"));
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "application", private: true, type: "module" }));
  run("npm", "install", "--offline", "--no-audit", "--no-fund", `./${filename}`);
  writeFileSync(join(project, "use.js"), `
    import { Fantail, FantailError, connect } from "fantail";
    import { Presence } from "fantail/presence";
    class WebSocket { constructor(url, protocols) { console.log(url, protocols.join()); } close() {} }
    const client = connect("https://edge.example.com/under/", { WebSocket });
    console.log(client instanceof Fantail, client.state, new FantailError("busy", "later").code);
    client.close();
    console.log(client.state);
    console.log(new Presence().follow("a").count);
  `);
  assert.equal(run("node", "use.js"), "wss://edge.example.com/under/ws fantail.json.v1\ntrue connecting busy\nclosed\n0\n");
  // As a project for Node and as one for a bundler reads it.
  copyFileSync(join(ROOT, "test/use.ts"), join(project, "use.ts"));
  const tsc = join(dirname(require.resolve("typescript/package.json")), "bin/tsc");
  for (const [module, resolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    const options = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--types", "", "--module", module, "--moduleResolution", resolution];
    try {
      run(process.execPath, tsc, ...options, "use.ts");
    } catch ({ stdout, stderr }) {
      assert.fail(`${module}: ${stdout}${stderr}`);
    }
  }
});

for (const [file, name, module] of [["fantail.d.ts", "Fantail", client], ["presence.d.ts", "Presence", presence]]) {
  test(`the types of ${name} name what the module has`, () => {
    const types = readFileSync(join(ROOT, file), "utf8");
    const exported = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, each]) => each).sort();
    assert.deepEqual(exported, Object.keys(module).sort());
    const declared = new RegExp(`export class ${name} \\{\\n(.*?)\\n\\}`, "s").exec(types)[1];
    const members = new Set([...declared.matchAll(/^ {2}(?:readonly )?(\w+)/gm)].map(([, each]) => each));
    // Of a class whose fields are its instances', the prototype has the methods; a constructor is declared where it takes anything.
    const own = Object.getOwnPropertyNames(module[name].prototype).filter((each) => each !== "constructor" || members.has(each));
    assert.deepEqual([...members].sort(), own.sort());
  });
}
