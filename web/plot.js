/* plot.js - small plots on a canvas: points or bars over the last N requests, an axis of two or three round numbers, and
 * the value under the pointer. Enough for this page, and nothing to fetch.
 *
 *   plot(canvas, {points: [{y, color, label}], line: [y...], unit: "ms", bars: false, max: undefined})
 */
"use strict";

function plotStep(max) {
  const power = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 5, 10].map(m => m * power / 2).find(step => max / step <= 4) || power;
}

function plotText(value, unit) {
  if (unit === "ms" && value >= 1000) return +(value / 1000).toPrecision(3) + " s";
  return +value.toPrecision(3) + (unit ? " " + unit : "");
}

function plot(canvas, data) {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  if (!box.width) return;
  canvas.width = box.width * ratio;
  canvas.height = box.height * ratio;
  const style = getComputedStyle(document.documentElement), ink = name => style.getPropertyValue(name).trim();
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.font = "11px system-ui, sans-serif";
  const {points} = data, left = 54, bottom = box.height - 6, top = 8, width = box.width - left;
  if (!points.length) {
    ctx.fillStyle = ink("--soft");
    ctx.fillText("no requests yet", left, box.height / 2);
    return;
  }
  const top_y = data.max || Math.max(...points.map(p => p.y), ...(data.line || []), 1e-3) * 1.08;
  const slot = width / points.length, x = i => left + slot * (i + 0.5); /* each has a place of its own: none is cut off */
  const y = value => bottom - (bottom - top) * Math.min(value, top_y) / top_y;

  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (let value = 0, step = plotStep(top_y); value <= top_y; value += step) {
    ctx.strokeStyle = ink("--line");
    ctx.beginPath();
    ctx.moveTo(left, y(value));
    ctx.lineTo(box.width, y(value));
    ctx.stroke();
    ctx.fillStyle = ink("--soft");
    if (value > 0) ctx.fillText(plotText(value, data.unit), left - 6, y(value));
  }
  if (data.line && data.line.length > 1) {
    ctx.strokeStyle = ink("--soft");
    ctx.beginPath();
    data.line.forEach((value, i) => i ? ctx.lineTo(x(i), y(value)) : ctx.moveTo(x(i), y(value)));
    ctx.stroke();
  }
  const bar = Math.max(1, Math.min(10, slot - 1));
  points.forEach((p, i) => {
    ctx.fillStyle = ink(p.color);
    if (data.bars) {
      ctx.fillRect(x(i) - bar / 2, y(p.y), bar, bottom - y(p.y));
    } else {
      ctx.beginPath();
      ctx.arc(x(i), y(p.y), points.length > 100 ? 2 : 3, 0, 7);
      ctx.fill();
    }
  });
  canvas.onpointermove = event => {
    const p = points[Math.max(0, Math.min(points.length - 1, Math.floor((event.offsetX - left) / slot)))];
    canvas.title = p.label || plotText(p.y, data.unit);
  };
}
