// For every list of sounds: its buttons, the cursor that runs over a spectrogram, a click to seek.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) {
    trigger("click", { action: button.dataset.do, number: button.dataset.number });
    return;
  }
  const plot = event.target.closest(".plot:not([data-region])");
  if (!plot) return;
  const place = plot.closest("section, article");
  const audio = place.querySelector("audio") ?? [...place.parentElement.querySelectorAll("audio")].at(-1);
  const box = plot.getBoundingClientRect();
  const seconds = Number(plot.parentElement.dataset.seconds);
  audio.currentTime = ((event.clientX - box.left) / box.width) * seconds;
  audio.play();
});
const follow = (event) => {
  const spectrogram = event.target.closest("section, article")?.querySelector(".spectrogram");
  if (!spectrogram) return;
  const cursor = spectrogram.querySelector(".cursor");
  const move = () => {
    cursor.style.left = `${(100 * event.target.currentTime) / Number(spectrogram.dataset.seconds)}%`;
    cursor.style.opacity = event.target.currentTime > 0 ? 1 : 0;
    if (!event.target.paused && event.target.isConnected) requestAnimationFrame(move);
  };
  move();
};
for (const name of ["play", "pause", "seeked", "ended"]) element.addEventListener(name, follow, true);

// A part of a sound is marked by dragging over its spectrogram.
let mark = null;
const secondsAt = (event) => {
  const box = mark.plot.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  return share * Number(mark.plot.parentElement.dataset.seconds);
};
element.addEventListener("pointerdown", (event) => {
  const plot = event.target.closest(".plot[data-region]");
  if (!plot) return;
  mark = { plot, from: 0 };
  mark.from = mark.to = secondsAt(event);
  plot.setPointerCapture(event.pointerId);
  event.preventDefault();
});
element.addEventListener("pointermove", (event) => {
  if (!mark) return;
  mark.to = secondsAt(event);
  let band = mark.plot.querySelector(".region");
  if (!band) band = mark.plot.appendChild(Object.assign(document.createElement("i"), { className: "region" }));
  const seconds = Number(mark.plot.parentElement.dataset.seconds);
  band.style.left = `${(100 * Math.min(mark.from, mark.to)) / seconds}%`;
  band.style.width = `${(100 * Math.abs(mark.to - mark.from)) / seconds}%`;
});
element.addEventListener("pointerup", () => {
  if (!mark) return;
  const [begin, end] = [mark.from, mark.to].sort((a, b) => a - b);
  mark = null;
  if (end - begin > 0.01) trigger("select", { begin, end });
});
