/**
 * The app in a real headless Chromium, on a real package.
 *
 * Environment: KOBAKO_PACKAGE the package's directory; KOBAKO_EXPECTED what `kobako run --target litert --task
 * summarize --json` printed for TEXT; KOBAKO_E2E_OUT where results and screenshots go; CHROMIUM the browser.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { AppPage } from './page';
import { docs } from './docs';
import { limits } from './limits';
import { Steps } from './steps';
import { accessibility, keyboard, looks } from './people';
import { refusals, resume } from './packages';
import { makeServer } from './fixture';
import { translator } from './translator';
import { bench, offline, stopping, summarizing, translating } from './use';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

const PARTS = [refusals, limits, resume, summarizing, stopping, translating, keyboard, bench, looks, accessibility, docs, offline];
const TRANSLATOR = [translator]; // on a package of its own: KOBAKO_E2E_TRANSLATOR=1

async function main(): Promise<boolean> {
  const only = process.env.KOBAKO_E2E_PARTS; // names of functions, for work on one of them; resume installs the package
  const out = process.env.KOBAKO_E2E_OUT ?? 'e2e-out';
  mkdirSync(out, { recursive: true });
  const expected = JSON.parse(readFileSync(process.env.KOBAKO_EXPECTED ?? 'expected.json', 'utf8'));
  const home = join(__dirname, '..');
  const directory = process.env.KOBAKO_PACKAGE ?? '';
  const { server, publicPem } = makeServer(join(home, 'dist'), directory);
  const address = await server.start();
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, locale: 'en-US', acceptDownloads: true });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const app = new AppPage(await context.newPage(), address, out);
  const steps = new Steps();
  steps.onFailure = (step) => app.screenshot(`failed-${step.replace(/\W+/g, '-')}`);
  const all = { app, server, steps, context, publicPem, directory, expected };
  try {
    await app.open();
    const parts = process.env.KOBAKO_E2E_TRANSLATOR ? TRANSLATOR : PARTS;
    for (const part of parts) if (!only || part === resume || only.split(',').includes(part.name)) await part(all);
  } finally {
    steps.write(join(out, 'results.json'));
    console.error(JSON.stringify(steps.figures, null, 2));
    await browser.close();
    await server.stop();
  }
  return steps.passed;
}

main().then(
  (passed) => process.exit(passed ? 0 : 1),
  (error: unknown) => {
    console.error(error);
    process.exit(2);
  },
);
