// Drawing something anew without taking away what is being looked at: the old elements stay, and take over what differs.
// So focus, what is selected, what is scrolled and what is opened stay as they are.

export function become(old, wanted) {
  if (old.nodeType !== wanted.nodeType || old.nodeName !== wanted.nodeName || old.dataset?.key !== wanted.dataset?.key) {
    old.replaceWith(wanted);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  fill(old, [...wanted.childNodes]);
}

// Let a box have these children, keeping those that are much the same.
export function fill(box, wanted) {
  const known = new Map([...box.children].filter((one) => one.dataset?.key).map((one) => [one.dataset.key, one]));
  let place = box.firstChild;
  for (const child of wanted) {
    const same = child.dataset?.key ? known.get(child.dataset.key) : place?.dataset?.key ? null : place;
    if (same) {
      if (same !== place) box.insertBefore(same, place);
      const next = same.nextSibling;
      become(same, child);
      place = next;
    } else {
      box.insertBefore(child, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}
