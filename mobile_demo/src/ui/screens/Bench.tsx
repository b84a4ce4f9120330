/** How fast this device is, and whether it computes what was proven. */
import { useRef, useState } from 'react';
import { View } from 'react-native';

import { runBench, type BenchResult } from '../../bench/bench';
import { AppError, asAppError } from '../../errors';
import { useWords, type Key } from '../../i18n';
import { saveText } from '../../platform/device';
import { packages } from '../../state/packages';
import { useStore } from '../../state/store';
import { bytesText, millisText } from '../format';
import { Button, Card, Notice, ProgressBar, Segments, styles, Words } from '../parts';
import { NoPackage } from '../taskparts';
import { space } from '../theme';

export function BenchScreen({ onOpenModels }: { onOpenModels: () => void }) {
  const t = useWords();
  const { installed, ready } = useStore(packages);
  const [name, setName] = useState<string | null>(null);
  const [fraction, setFraction] = useState<number | null>(null);
  const [result, setResult] = useState<BenchResult | null>(null);
  const [error, setError] = useState<AppError | null>(null);
  const controller = useRef<AbortController | null>(null);
  const one = installed.find((it) => it.manifest.name === name) ?? installed[0];
  if (!ready) return null;
  if (!one) return <NoPackage reason="nothingInstalled" onOpenModels={onOpenModels} />;

  const begin = async () => {
    const mine = (controller.current = new AbortController());
    setResult(null);
    setError(null);
    setFraction(0);
    try {
      setResult(await runBench(one, { controller: mine, onProgress: setFraction }));
    } catch (reason) {
      const known = asAppError(reason, 'engine');
      setError(known.code === 'aborted' ? null : known); // stopped, as was asked
    } finally {
      setFraction(null);
    }
  };
  return (
    <View style={{ gap: space.l }}>
      <Words soft>{t('benchWhy')}</Words>
      {installed.length > 1 && (
        <Segments label={t('benchModel')} value={one.manifest.name} options={installed.map((it) => ({ value: it.manifest.name, label: it.manifest.name }))} onChange={setName} />
      )}
      {fraction === null ? (
        <Button kind="main" icon="speedometer-outline" label={t('run')} onPress={() => void begin()} />
      ) : (
        <>
          <Button icon="stop" label={t('stop')} onPress={() => controller.current?.abort()} />
          <ProgressBar fraction={fraction} label={t('working')} />
        </>
      )}
      {error && <Notice kind="error">{t(`error_${error.code}`)}</Notice>}
      {result && <Result result={result} />}
    </View>
  );
}

function Result({ result }: { result: BenchResult }) {
  const t = useWords();
  const figures: readonly (readonly [Key, string])[] = [
    ['loadTime', millisText(result.loadMs)],
    ['firstToken', millisText(result.firstTokenMs)],
    ['speed', `${result.tokensPerSecond.toFixed(1)} tok/s`],
    ['memory', result.memoryBytes === null ? '–' : bytesText(result.memoryBytes)],
  ];
  return (
    <>
      <Card label={result.package}>
        <Words>{`${result.package} · ${result.engine}`}</Words>
        <View style={{ flexDirection: 'row', flexWrap: 'wrap', rowGap: space.m }}>
          {figures.map(([key, value]) => (
            <View key={key} style={{ width: '50%' }}>
              <Words small soft>{t(key)}</Words>
              <Words>{value}</Words>
            </View>
          ))}
        </View>
      </Card>
      <Card>
        <View testID="golden">
          <Notice kind={result.passed ? 'good' : 'error'}>{t(result.passed ? 'goldenPass' : 'goldenFail')}</Notice>
        </View>
        {result.checks.map((check) => (
          <View key={check.name} style={styles.between}>
            <Words soft>{t(`check_${check.name}`)}</Words>
            <Words small>{`${check.passed ? '✓' : '✗'} ${check.value} (${check.demand})`}</Words>
          </View>
        ))}
      </Card>
      <Button icon="download-outline" label={t('exportJson')} onPress={() => saveText(`${result.package}-check.json`, JSON.stringify(result, null, 2))} />
    </>
  );
}
