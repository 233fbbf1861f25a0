#pragma once

namespace moerun {

/// The page's style. Colours tell the same to people who do not see red and green apart (Okabe and Ito's, and
/// a ramp of one hue whose lightness falls all along); text has a contrast of at least 4.5 to what is behind
/// it, light, dark and printed.
inline constexpr const char* kPageStyle = R"css(
:root { color-scheme: light dark; --page: #fff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #57606a; --line: #d9dee4;
  --grid: #e6e9ed; --good: #1a6b3c; --bad: #a62b1f;
  --c0: #0072b2; --c1: #d97b00; --c2: #009e73; --c3: #b0548a; --c4: #e3c22b; --c5: #b9c1ca;
  --h0: #f1f4f8; --h1: #d6e4f0; --h2: #aecde3; --h3: #7fb0d3; --h4: #4c8fc0; --h5: #2a6ba5; --h6: #174b80; --h7: #0b2d54 }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --panel: #1c2026; --ink: #e7eaee; --soft: #a3adb8; --line: #353b44;
  --grid: #2a3038; --good: #6fce97; --bad: #ff9c8f;
  --c0: #4ba3dd; --c1: #f0a03c; --c2: #35c397; --c3: #d886b5; --c4: #ead25a; --c5: #59626d;
  --h0: #1f242b; --h1: #17334f; --h2: #1a4a75; --h3: #22659c; --h4: #3c86bf; --h5: #6aa9d8; --h6: #a3cdec; --h7: #e3f1fb } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink); background: var(--page);
  margin: 0 auto; max-width: 82rem; padding: 2rem 2rem 3rem; font-variant-numeric: tabular-nums }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; font-weight: 650 }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .2rem; padding-top: .7rem; border-top: 1px solid var(--line); font-weight: 650 }
h3 { font-size: .95rem; margin: 1.4rem 0 .3rem; font-weight: 600 }
p { margin: .2rem 0 .8rem; color: var(--soft); max-width: 62rem; overflow-wrap: anywhere }
.state { font-weight: 600; margin: .3rem 0 1.2rem } .state.good { color: var(--good) } .state.bad { color: var(--bad) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .75rem; margin: 0 0 1.2rem }
.tiles div { background: var(--panel); border-radius: 6px; padding: .7rem .9rem .75rem }
.tiles dt { color: var(--soft); font-size: .85rem } .tiles dd { margin: 0 }
.tiles .value { font-size: 1.35rem; line-height: 1.35; font-weight: 600 } .tiles .more { color: var(--soft); font-size: .85rem }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.4rem; margin: 0 }
.facts dt { color: var(--soft) } .facts dd { margin: 0; overflow-wrap: anywhere }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin: .3rem 0 .6rem; padding: 0; list-style: none; font-size: .87rem }
.key li { display: flex; align-items: center; gap: .45rem } .key i { width: .8rem; height: .8rem; border-radius: 2px; flex: none; outline: 1px solid var(--line); outline-offset: -1px }
svg { display: block; width: 100%; height: 100% }
.figure { position: relative; margin: 0; break-inside: avoid }
.panel { display: grid; grid-template-columns: 4.4rem 1fr; margin-top: 1.1rem; break-inside: avoid }
.panel h3 { grid-column: 2; margin: 0 0 .35rem; font-size: .9rem } .panel h3 span { color: var(--soft); font-weight: 400; margin-left: .5rem }
.panel h3 i { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin: 0 .3rem 0 .8rem }
.y { position: relative; grid-column: 1 } .y span { position: absolute; right: .55rem; font-size: .8rem; line-height: 1; color: var(--soft); transform: translateY(50%); white-space: nowrap }
.plot { position: relative; grid-column: 2; border-bottom: 1px solid var(--soft) }
.x { position: relative; grid-column: 2; height: 1.5rem } .x span { position: absolute; top: .35rem; font-size: .8rem; line-height: 1; color: var(--soft); transform: translateX(-50%); white-space: nowrap }
.x .first { transform: none } .x .last { transform: translateX(-100%) }
.grid { stroke: var(--grid) } .mark { stroke: var(--ink); stroke-dasharray: 4 3 }
.grid, .mark, .curve { vector-effect: non-scaling-stroke; stroke-width: 1; fill: none } .curve { stroke-width: 1.6 }
.area { opacity: .16; stroke: none }
.hint { color: var(--soft); font-size: .85rem; min-height: 1.5em; margin: .2rem 0 0 }
.bins { position: absolute; top: 0; bottom: 1.5rem; left: 4.4rem; right: 0 }
.bins div { position: absolute; top: 0; bottom: 0 } .bins div:hover { border-left: 1px solid var(--ink) }
.bins span { display: none; position: fixed; right: 1rem; bottom: 1rem; padding: .45rem .8rem; border-radius: 6px; border: 1px solid var(--line);
  background: var(--panel); color: var(--ink); font-size: .87rem; z-index: 1; max-width: 90% } .bins div:hover span { display: block }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .87rem }
th, td { text-align: left; padding: .28rem .75rem .28rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; overflow-wrap: anywhere }
th { font-weight: 600; color: var(--soft); white-space: nowrap; vertical-align: bottom } .n { text-align: right; white-space: nowrap } tr.all td { font-weight: 600 }
.ranks { width: 100% } .ranks th, .ranks td { padding-right: .8rem } .ranks td { vertical-align: middle } .ranks .strip { width: 46%; padding-right: 1.2rem }
.strip div { height: 1.5rem; background: var(--panel) } .ranks td:first-child { white-space: nowrap }
.bar { display: flex; height: 1.6rem; gap: 1px; background: var(--panel); margin: .5rem 0 } .bar i { display: block; min-width: 0 }
.heat { display: grid; grid-template-columns: 4.4rem 1fr; break-inside: avoid; margin-top: .4rem } .heat.wide { grid-template-columns: 4.4rem 1fr 9rem }
.heat .cells { border: 0 } .cells path { stroke-width: 1; shape-rendering: crispEdges } .heat h3 { grid-column: 2; margin: 1rem 0 .35rem; font-size: .9rem }
.heat h3 span { color: var(--soft); font-weight: 400; margin-left: .5rem } .beside { grid-column: 3; margin-left: 1.2rem } .beside .plot { border: 0; border-left: 1px solid var(--soft) }
.beside.x { position: relative; height: 1.5rem } .nw { white-space: nowrap }
.flat { shape-rendering: crispEdges }
code { font: .95em ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
.settings { columns: 2; column-gap: 3rem; margin-top: .4rem } .settings table { width: 100%; break-inside: avoid; margin-bottom: 1.1rem; table-layout: fixed }
.settings caption { text-align: left; font-weight: 600; font-size: .9rem; padding: .2rem 0 } .settings td:last-child { padding-right: 0 }
.settings .given td { font-weight: 600 } .settings td { color: var(--soft) } .settings .given td, .settings .decided td { color: var(--ink) }
.settings .how { width: 5.2rem; text-align: right }
details { margin: .6rem 0 } summary { cursor: pointer; color: var(--ink); font-weight: 600; font-size: .92rem }
footer { margin-top: 2.6rem; padding-top: .7rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem }
.f0 { background: var(--c0); fill: var(--c0) } .f1 { background: var(--c1); fill: var(--c1) } .f2 { background: var(--c2); fill: var(--c2) }
.f3 { background: var(--c3); fill: var(--c3) } .f4 { background: var(--c4); fill: var(--c4) } .f5 { background: var(--c5); fill: var(--c5) }
.l0 { stroke: var(--c0) } .l1 { stroke: var(--c1) } .l2 { stroke: var(--c2) }
.h0 { stroke: var(--h0); background: var(--h0) } .h1 { stroke: var(--h1); background: var(--h1) } .h2 { stroke: var(--h2); background: var(--h2) }
.h3 { stroke: var(--h3); background: var(--h3) } .h4 { stroke: var(--h4); background: var(--h4) } .h5 { stroke: var(--h5); background: var(--h5) }
.h6 { stroke: var(--h6); background: var(--h6) } .h7 { stroke: var(--h7); background: var(--h7) }
@media (max-width: 60rem) { .settings { columns: 1 } body { padding: 1.2rem 1.2rem 2rem } }
@media print { :root { color-scheme: light; --page: #fff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #57606a; --line: #d9dee4; --grid: #e6e9ed; --good: #1a6b3c; --bad: #a62b1f;
  --c0: #0072b2; --c1: #d97b00; --c2: #009e73; --c3: #b0548a; --c4: #e3c22b; --c5: #b9c1ca;
  --h0: #f1f4f8; --h1: #d6e4f0; --h2: #aecde3; --h3: #7fb0d3; --h4: #4c8fc0; --h5: #2a6ba5; --h6: #174b80; --h7: #0b2d54 }
  body { max-width: none; padding: 0; font-size: 12px } * { print-color-adjust: exact; -webkit-print-color-adjust: exact } .hint, .bins { display: none }
  h2, h3 { break-after: avoid } tr { break-inside: avoid } .scroll { overflow: visible } }
)css";

}  // namespace moerun
