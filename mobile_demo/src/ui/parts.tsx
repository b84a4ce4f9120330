/** The pieces that every screen is made of. */
import Ionicons from '@expo/vector-icons/Ionicons';
import { type ComponentProps, type ReactNode } from 'react';
import { ActivityIndicator, Pressable, StyleSheet, Switch, Text, View } from 'react-native';

import { radius, space, TOUCH, useColors } from './theme';

export type IconName = ComponentProps<typeof Ionicons>['name'];

export function Icon({ name, size = 20, color }: { name: IconName; size?: number; color: string }) {
  return (
    <View aria-hidden importantForAccessibility="no">
      <Ionicons name={name} size={size} color={color} />
    </View>
  );
}

export function Title({ children }: { children: string }) {
  const colors = useColors();
  return (
    <Text role="heading" aria-level={2} style={[styles.title, { color: colors.text }]}>
      {children}
    </Text>
  );
}

interface WordsProps {
  readonly children: ReactNode;
  readonly soft?: boolean;
  readonly small?: boolean;
  readonly strong?: boolean;
  readonly centered?: boolean;
}

export function Words({ children, soft = false, small = false, strong = false, centered = false }: WordsProps) {
  const colors = useColors();
  const weight = strong ? styles.strong : null;
  return <Text style={[small ? styles.small : styles.body, weight, centered && { textAlign: 'center' }, { color: soft ? colors.soft : colors.text }]}>{children}</Text>;
}

export function Card({ children, label }: { children: ReactNode; label?: string }) {
  const colors = useColors();
  return (
    <View role={label ? 'group' : undefined} aria-label={label} style={[styles.card, { backgroundColor: colors.card, borderColor: colors.line }]}>
      {children}
    </View>
  );
}

interface ButtonProps {
  readonly label: string;
  readonly onPress: () => void;
  readonly icon?: IconName;
  readonly kind?: 'main' | 'plain' | 'quiet' | 'danger';
  readonly disabled?: boolean;
  readonly testID?: string;
}

export function Button({ label, onPress, icon, kind = 'plain', disabled = false, testID }: ButtonProps) {
  const colors = useColors();
  const ink = { main: colors.onAccent, plain: colors.accent, quiet: colors.soft, danger: colors.danger }[kind];
  const ground = kind === 'main' ? colors.accent : kind === 'plain' ? colors.tint : 'transparent';
  return (
    <Pressable
      role="button"
      testID={testID}
      aria-disabled={disabled}
      disabled={disabled}
      onPress={onPress}
      style={({ pressed }) => [styles.button, { backgroundColor: ground, opacity: disabled ? 0.5 : pressed ? 0.75 : 1 }]}
    >
      {icon && <Icon name={icon} size={18} color={ink} />}
      <Text style={[styles.buttonText, { color: ink }]}>{label}</Text>
    </Pressable>
  );
}

export function IconButton({ label, icon, onPress, disabled = false }: { label: string; icon: IconName; onPress: () => void; disabled?: boolean }) {
  const colors = useColors();
  return (
    <Pressable
      role="button"
      aria-label={label}
      aria-disabled={disabled}
      disabled={disabled}
      onPress={onPress}
      hitSlop={4}
      style={({ pressed }) => [styles.iconButton, { opacity: disabled ? 0.4 : pressed ? 0.6 : 1 }]}
    >
      <Icon name={icon} color={colors.soft} />
    </Pressable>
  );
}

/** One of a few choices, side by side. */
export function Segments<T extends string>({ label, value, options, onChange }: {
  label: string;
  value: T;
  options: readonly { readonly value: T; readonly label: string }[];
  onChange: (value: T) => void;
}) {
  const colors = useColors();
  return (
    <View role="radiogroup" aria-label={label} style={[styles.segments, { backgroundColor: colors.field, borderColor: colors.line }]}>
      {options.map((option) => {
        const chosen = option.value === value;
        return (
          <Pressable
            key={option.value}
            role="radio"
            aria-checked={chosen}
            onPress={() => onChange(option.value)}
            style={[styles.segment, chosen && { backgroundColor: colors.accent }]}
          >
            <Text style={[styles.segmentText, { color: chosen ? colors.onAccent : colors.soft }]}>{option.label}</Text>
          </Pressable>
        );
      })}
    </View>
  );
}

export function SwitchRow({ label, value, onChange }: { label: string; value: boolean; onChange: (value: boolean) => void }) {
  const colors = useColors();
  return (
    <View style={styles.row}>
      <View style={styles.grow}>
        <Words>{label}</Words>
      </View>
      <Switch
        aria-label={label}
        value={value}
        onValueChange={onChange}
        trackColor={{ true: colors.accent, false: colors.line }}
        thumbColor={colors.card}
        {...{ activeThumbColor: colors.card }}
      />
    </View>
  );
}

export function ProgressBar({ fraction, label }: { fraction: number; label: string }) {
  const colors = useColors();
  const percent = Math.round(Math.min(1, Math.max(0, fraction)) * 100);
  return (
    <View
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
      style={[styles.track, { backgroundColor: colors.line }]}
    >
      <View style={[styles.bar, { width: `${percent}%`, backgroundColor: colors.accent }]} />
    </View>
  );
}

/** What went wrong, or what is under way; read out when it changes. */
export function Notice({ children, kind = 'info', busy = false }: { children: string; kind?: 'info' | 'error' | 'good'; busy?: boolean }) {
  const colors = useColors();
  const ink = { info: colors.soft, error: colors.danger, good: colors.good }[kind];
  const icon = ({ info: 'information-circle-outline', error: 'alert-circle-outline', good: 'checkmark-circle-outline' } as const)[kind];
  return (
    <View role={kind === 'error' ? 'alert' : 'status'} aria-live="polite" style={styles.notice}>
      {busy ? <ActivityIndicator size="small" color={colors.accent} /> : <Icon name={icon} color={ink} />}
      <Text style={[styles.noticeText, { color: ink }]}>{children}</Text>
    </View>
  );
}

export const styles = StyleSheet.create({
  title: { fontSize: 15, fontWeight: '700', letterSpacing: 0.2, marginTop: space.s },
  body: { fontSize: 16, lineHeight: 24 },
  strong: { fontWeight: '700' },
  small: { fontSize: 13.5, lineHeight: 20 },
  card: { borderRadius: radius.m, borderWidth: 1, padding: space.l, gap: space.m },
  button: { minHeight: TOUCH, maxWidth: '100%', borderRadius: radius.full, paddingHorizontal: space.l, flexDirection: 'row', alignItems: 'center', justifyContent: 'center', gap: space.s },
  buttonText: { flexShrink: 1, textAlign: 'center', fontSize: 16, fontWeight: '600' },
  iconButton: { width: TOUCH, height: TOUCH, alignItems: 'center', justifyContent: 'center', borderRadius: radius.full },
  segments: { flexDirection: 'row', borderRadius: radius.full, borderWidth: 1, padding: 3 },
  segment: { flex: 1, minHeight: TOUCH - 8, borderRadius: radius.full, alignItems: 'center', justifyContent: 'center', paddingHorizontal: space.s },
  segmentText: { fontSize: 14, fontWeight: '600', textAlign: 'center' },
  row: { flexDirection: 'row', alignItems: 'center', gap: space.m, flexWrap: 'wrap' },
  between: { flexDirection: 'row', alignItems: 'center', justifyContent: 'space-between', gap: space.s },
  grow: { flexGrow: 1, flexShrink: 1, flexBasis: 120 },
  track: { height: 6, borderRadius: 3, overflow: 'hidden' },
  bar: { height: 6, borderRadius: 3 },
  notice: { flexDirection: 'row', alignItems: 'center', gap: space.s },
  noticeText: { fontSize: 14.5, lineHeight: 21, flexShrink: 1 },
  input: { fontSize: 17, lineHeight: 26, minHeight: 132, textAlignVertical: 'top', padding: 0 },
  field: { fontSize: 16, minHeight: TOUCH, borderWidth: 1, borderRadius: radius.s, paddingHorizontal: space.m, paddingVertical: space.s },
});
