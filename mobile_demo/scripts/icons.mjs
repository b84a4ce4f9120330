// Draws every icon of the app from assets/icon.svg. Needs Chromium (CHROMIUM, or /usr/bin/chromium).
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const home = join(dirname(fileURLToPath(import.meta.url)), '..');
const svg = readFileSync(join(home, 'assets/icon.svg'), 'utf8');
const bare = '#ground { display: none }';
// launchers cut adaptive icons to a circle of two thirds of their width
const small = '#box { transform: scale(0.62); transform-origin: 512px 520px }';
const oneColour = '#box path { fill: #fff } #box { stroke: none } path:nth-of-type(1), path:nth-of-type(4) { opacity: 0.55 } path:nth-of-type(3) { opacity: 0.8 }';
const ICONS = [
  ['assets/icon.png', 1024, ''],
  ['assets/android-icon-foreground.png', 432, bare + small],
  ['assets/android-icon-monochrome.png', 432, bare + small + oneColour],
  ['assets/favicon.png', 48, ''],
  ['public/icon.png', 512, '#box { transform: scale(0.8); transform-origin: 512px 520px }'],
];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
const page = await browser.newPage();
for (const [path, size, style] of ICONS) {
  await page.setViewportSize({ width: size, height: size });
  await page.setContent(`<style>body { margin: 0 } svg { display: block; width: 100vw } ${style}</style>${svg}`);
  await page.screenshot({ path: join(home, path), omitBackground: style.includes(bare) });
}
await browser.close();
