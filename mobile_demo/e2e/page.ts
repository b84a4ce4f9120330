/** The app as a person meets it: by the names of things on the screen. */
import { join } from 'node:path';

import type { Locator, Page } from 'playwright-core';

import type { Steps } from './steps';

export type Tab = 'Translate' | 'Summarize' | 'Models' | 'Check' | 'Settings';

export class AppPage {
  readonly problems: string[] = [];

  constructor(
    readonly page: Page,
    readonly address: string,
    readonly out: string,
  ) {
    page.setDefaultTimeout(30_000);
    page.on('pageerror', (error) => this.problems.push(error.message));
    if (process.env.KOBAKO_E2E_VERBOSE) page.on('console', (message) => console.error(`     ${message.text()}`));
  }

  async open(): Promise<void> {
    await this.page.goto(this.address);
    await this.page.getByRole('tab').first().waitFor();
  }

  async tab(name: Tab): Promise<void> {
    await this.page.getByRole('tab', { name, exact: true }).click();
  }

  /** A button that can be seen: screens out of sight stay alive. */
  button(name: string | RegExp): Locator {
    return this.page.getByRole('button', { name, exact: typeof name === 'string' }).filter({ visible: true });
  }

  card(name: string): Locator {
    return this.page.getByRole('group', { name, exact: true }).filter({ visible: true });
  }

  text(text: string | RegExp): Locator {
    return this.page.getByText(text).filter({ visible: true }).first();
  }

  async addPackage(name: string): Promise<void> {
    await this.tab('Models');
    await this.page.getByRole('textbox', { name: 'Address of a package' }).fill(`${this.address}packages/${name}`);
    await this.button('Add').click();
  }

  /** The summary that stands on the screen once the engine is done. */
  async summary(timeout = 120_000): Promise<string> {
    await this.button('Summarize').waitFor({ timeout });
    return (await this.page.getByTestId('result').filter({ visible: true }).textContent()) ?? '';
  }

  /** Presses Translate and waits for the end; notes the seconds until all of it stands there. */
  async translation(steps: Steps, how: 'Cold' | 'Warm', timeout = 120_000): Promise<string> {
    const begin = Date.now();
    await this.button('Translate').click();
    await this.button('Stop').waitFor();
    await this.button('Translate').waitFor({ timeout });
    steps.figures[`firstTranslation${how}Seconds`] = (Date.now() - begin) / 1000;
    return (await this.page.getByTestId('result').filter({ visible: true }).textContent()) ?? '';
  }

  async screenshot(name: string): Promise<void> {
    await this.page.screenshot({ path: join(this.out, `${name}.png`) });
  }
}
