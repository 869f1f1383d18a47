// The heatmap's colour map. Its lightness is monotonic (light to dark, in dark mode dark to light), so that it is readable for the
// colour-blind and in a grey print.
const LIGHT = ["#f4f7f6", "#d3e9e2", "#94cfc6", "#4fa6b8", "#2b73a8", "#214488", "#181d56"];
const DARK = ["#1a212c", "#1d3b5a", "#1f627e", "#2f8f8f", "#6aba8c", "#b5dc86", "#faf2a2"];
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// Returns 256 colours, [r, g, b] each.
export function ramp(isDark) {
  const stops = (isDark ? DARK : LIGHT).map(channels);
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1);
    const k = Math.min(Math.floor(at), stops.length - 2);
    return stops[k].map((low, c) => Math.round(low + (stops[k + 1][c] - low) * (at - k)));
  });
}

export const gradient = (isDark) => `linear-gradient(to right, ${(isDark ? DARK : LIGHT).join(", ")})`;

export function step(value, [low, high]) {
  return Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low))));
}

// Returns a text colour that is readable on a colour, by its relative luminance.
export function inkOn([r, g, b]) {
  const linear = (c) => (c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) > 0.19 ? "#10141b" : "#ffffff";
}
