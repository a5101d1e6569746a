import { MsalProvider } from "@azure/msal-react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { msal, start } from "./auth";
import { MissingSettings } from "./notices";
import { missingSettings } from "./settings";
import "./styles.css";

const element = document.getElementById("root");
if (!element) {
  throw new Error("index.html has no #root");
}
const root = createRoot(element);

if (missingSettings.length > 0) {
  root.render(<MissingSettings names={missingSettings} />);
} else {
  // Before the first render: what a redirect brought back decides which page that is.
  const problem = await start();
  root.render(
    <StrictMode>
      <MsalProvider instance={msal}>
        <App problem={problem} />
      </MsalProvider>
    </StrictMode>,
  );
}
